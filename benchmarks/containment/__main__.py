"""Run culprits beside blameless tasks on real servers, and count what happens to the blameless.

    python -m benchmarks.containment --ministack PATH [SCENE…]

Without names, every scene but the attacks is played: of those, some cannot be contained.

Each scene runs on the endpoint (gunicorn with one process of 15 threads, nginx, the stand-in for
the daemon) and on the poller, with PostgreSQL, and one of psycopg 3 and psycopg2. Each blameless
task writes a row, so lost work is counted by rows. The figure of a scene is the number of blameless
tasks that were lost, done twice or dead-lettered, and of their deliveries that failed. The exit
code is 1 if a figure is above what the scene gives a reason for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.processes import free_port, process, wait_for
from tests.services import postgres, valkey

from .machine import Servers
from .scenes import ATTACKS, SCENES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=", ".join([*SCENES, *ATTACKS]))
    parser.add_argument("--ministack", default="ministack")
    parser.add_argument(
        "--keep",
        type=lambda path: Path(path).resolve(),
        help="a folder in which the logs stay",
    )
    arguments = parser.parse_args()
    are_well = []
    with ExitStack() as stack:
        if arguments.keep:
            arguments.keep.mkdir(exist_ok=True)
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        stack.enter_context(
            process(arguments.ministack, GATEWAY_PORT=str(port), BIND_HOST="127.0.0.1")
        )
        wait_for(port)
        servers = Servers(
            sqs=f"http://127.0.0.1:{port}",
            postgres=stack.enter_context(postgres()),
            valkey=stack.enter_context(valkey()),
        )
        servers.make_tables()
        for name in arguments.scenes or SCENES:
            scene = (SCENES | ATTACKS)[name]
            for consumer in scene.consumers:
                for driver in scene.drivers:
                    figures = scene.play(name, servers, folder, scene.consumers[consumer], driver)
                    are_well.append(scene.is_well(figures))
                    print(
                        f"{'ok' if are_well[-1] else 'NOT OK':<7}{figures.harmed:>4}  "
                        f"{name} {consumer} {driver}: {figures}",
                        flush=True,
                    )
            if scene.reason:
                print(f"           not 0 because: {scene.reason}")
    return 0 if all(are_well) else 1


if __name__ == "__main__":
    sys.exit(main())
