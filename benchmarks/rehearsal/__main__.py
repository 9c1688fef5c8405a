"""Play every surprise of a worker machine on this machine, and print who caught it.

    python -m benchmarks.rehearsal

A line has the surprise, who caught it, and the line that said so. The exit code is 1 if nobody
caught one of them.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings
from moto.server import ThreadedMotoServer

from .surprises import Rehearsal, Row


def _show(row: Row) -> None:
    print(f"{'NOT OK' if row.problem else 'ok':<8}{row}", flush=True)


def main() -> int:
    for name in ("werkzeug", "beanstalk_dispatch"):  # this process stands for the web tier
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    settings.configure(SECRET_KEY="for-the-rehearsal-only", INSTALLED_APPS=["beanstalk_dispatch"])
    django.setup()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
            rehearsal = Rehearsal(f"http://{host}:{port}", Path(folder), show=_show)
            rows = rehearsal.run()
    finally:
        server.stop()
    failed = sum(bool(row.problem) for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} surprises were caught or handled")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
