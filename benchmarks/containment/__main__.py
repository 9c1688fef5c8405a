"""Run culprits beside blameless tasks on real servers, and count what happens to the blameless.

    python -m benchmarks.containment --ministack PATH [--fauxqs PATH] [SCENE…]

Without names, every scene but the attacks is played: of those, some cannot be contained.

Each scene runs on the endpoint (gunicorn with one process of 15 threads, nginx, the stand-in for
the daemon) and on the poller, with tasks in threads and in processes of their own. Some run with
each driver: psycopg 3 and psycopg2 on PostgreSQL, and PyMySQL, which is written in Python, on
MariaDB. Those of FIFO queues run on each SQS server. Each blameless task writes a row, so lost work
is counted by rows. The figure of a scene is the number of blameless tasks that were lost, done
twice or dead-lettered, and of their deliveries that failed. At the end they stand in one table, and
docs/rehearsal.md gets the range of the last plays. The exit code is 1 if a figure is above what the
scene gives a reason for.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Final

from benchmarks.mariadb import mariadb
from benchmarks.stand_ins import sqs_servers
from docs import generate
from tests.services import postgres, valkey

from .machine import Figures, Servers
from .scenes import ATTACKS, CONSUMERS, SCENES

KEPT: Final = 5
"""The number of plays of which the page shows the range."""


def table(rows: dict[tuple[str, ...], Figures]) -> str:
    """What became of the blameless tasks, with a line for each scene."""
    titles = (
        "scene", "isolation", "consumer", "driver", "SQS server", "failed", "twice", "dead",
        "lost", "restarted",
    )  # fmt: skip
    lines = [
        (
            *names,
            *map(
                str, (each.failed, each.done_twice, each.dead_lettered, each.lost, each.restarted)
            ),
        )
        for names, each in rows.items()
    ]
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    return "\n".join(
        "  ".join(f"{value:<{width}}" for value, width in zip(line, widths, strict=True)).rstrip()
        for line in (titles, *lines)
    )


def keep(name: str, key: str, harmed: int) -> None:
    """Add a play to the last KEPT ones of a scene. Several runs may do so at a time."""
    with generate.RESULTS.open("r+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        results: dict[str, dict[str, Any]] = json.load(file)
        cells = results.setdefault(name, {})
        last = cells.get(key, "").split()[-KEPT + 1 :]
        cells[key] = " ".join([*last, f"{datetime.now(tz=UTC):%F}={harmed}"])
        for scene, cells in results.items():
            cells["no meaning"] = (SCENES | ATTACKS)[scene].no_meaning
        file.seek(0)
        file.truncate()
        file.write(json.dumps(results, indent=1, sort_keys=True) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=", ".join([*SCENES, *ATTACKS]))
    parser.add_argument("--ministack", default="ministack")
    parser.add_argument("--fauxqs", type=Path, default=Path(".venv-fauxqs"))
    parser.add_argument(
        "--isolation", choices=("thread", "process", "fresh"), help="play no other than this"
    )
    parser.add_argument("--consumer", choices=CONSUMERS, help="play on no other than this")
    parser.add_argument(
        "--keep", type=lambda path: Path(path).resolve(), help="a folder in which the logs stay"
    )
    arguments = parser.parse_args()
    are_well: list[bool] = []
    rows: dict[tuple[str, ...], Figures] = {}
    missing: set[str] = set()
    with ExitStack() as stack:
        if arguments.keep:
            arguments.keep.mkdir(exist_ok=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = arguments.keep or scratch
        found = stack.enter_context(sqs_servers(arguments.ministack, arguments.fauxqs))
        servers = Servers(
            sqs=found["ministack"],
            postgres=stack.enter_context(postgres()),
            valkey=stack.enter_context(valkey()),
            mariadb=stack.enter_context(mariadb()),
        )
        servers.make_tables()
        for name in arguments.scenes or SCENES:
            scene = (SCENES | ATTACKS)[name]
            for isolation, consumer, driver, sqs in product(
                scene.isolations, scene.consumers, scene.drivers, scene.sqs_servers
            ):
                if arguments.isolation not in (None, isolation):
                    continue
                if arguments.consumer not in (None, consumer):
                    continue
                if sqs not in found or (driver == "pymysql" and not servers.mariadb):
                    missing.add("MariaDB (apt-get install mariadb-server)" if sqs in found else sqs)
                    continue
                figures = scene.play(
                    name, replace(servers, sqs=found[sqs]), folder, scene.consumers[consumer],
                    driver, isolation=isolation,
                )  # fmt: skip
                are_well.append(scene.is_well(figures, isolation))
                keep(name, f"{isolation} {consumer} {driver} {sqs}", figures.harmed)
                rows[name, isolation, consumer, driver, sqs] = figures
                print(
                    f"{'ok' if are_well[-1] else 'NOT OK':<7}{figures.harmed:>4}  "
                    f"{name} {isolation} {consumer} {driver} {sqs}: {figures}",
                    flush=True,
                )
            if scene.reason:
                print(f"           not 0 because: {scene.reason}")
    generate.main()
    print(f"\nBlameless tasks that were harmed:\n{table(rows)}")
    if missing:
        print(f"NOT RUN, because this machine has no {', no '.join(sorted(missing))}")
    return 0 if all(are_well) else 1


if __name__ == "__main__":
    sys.exit(main())
