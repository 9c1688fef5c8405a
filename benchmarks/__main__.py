"""The benchmarks: each row against its baseline and its peers, in turns, in one run.

``python -m benchmarks --quick`` takes a few minutes on an idle machine, and without ``--quick``
about ten times as long. The first run also makes the environments of the peers. ``--only`` takes
names of rows. ``--docs`` writes the figures and the pictures of docs/benchmarks.md. The exit code
is 1 if a target is missed.

All traffic is on loopback, and SQS is a stand-in in another process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from . import peers, rows
from .compare import ROOT, Line, Run, machine, started

RESULT: Final = ROOT / "dist" / "benchmarks.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", nargs="+", choices=sorted(rows.ROWS), metavar="ROW",
                        help=f"of {', '.join(rows.ROWS)}")  # fmt: skip
    parser.add_argument("--docs", action="store_true", help="write the page's figures and pictures")
    options = parser.parse_args()
    before, began = machine(), time.monotonic()
    failed = peers.install()
    present = [each for each in peers.PEERS if each.name not in failed]
    RESULT.parent.mkdir(exist_ok=True)
    has_failed = False
    with started(is_quick=options.quick) as run:
        for name, reason in failed.items():
            run.add(Line(row="install", side=name, unit="", note=reason))
        for name in options.only or rows.ROWS:
            try:
                rows.ROWS[name](run, present)
            except Exception as exc:  # the rows that follow are still measured
                traceback.print_exc()
                run.control.ask("Latency", seconds=0)
                run.add(Line(row=name, side="the row", unit="", note=f"has failed: {exc!r}"))
                has_failed = True
            # After each row, so that a run that is interrupted has a report.
            report = _report(run, before, time.monotonic() - began)
            RESULT.write_text(json.dumps(report, indent=1, ensure_ascii=False))
    print(f"{report['seconds']} s; written to {RESULT.relative_to(ROOT)}")
    if options.docs:
        from .page import write

        write(report)
    return 1 if has_failed or any(line.is_met is False for line in run.lines) else 0


def _report(run: Run, before: Mapping[str, str], seconds: float) -> dict[str, Any]:
    return {
        "command": "python -m benchmarks" + " --quick" * run.is_quick,
        "when": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds),
        "machine": {**before, "load after": " ".join(f"{each:.1f}" for each in os.getloadavg())},
        "versions": run.versions,
        "lines": [asdict(line) | {"is_met": line.is_met} for line in run.lines],
    }


if __name__ == "__main__":
    sys.exit(main())
