"""``manage.py beanstalk_cancel ID [ID…]`` cancels tasks."""

from __future__ import annotations

import argparse
import json
from typing import Any

from beanstalk_dispatch.client import cancel
from beanstalk_dispatch.management.printing import PrintingCommand


class Command(PrintingCommand):
    """The command that cancels each task for all workers.

    Nobody knows of an id whether there is such a task, or whether it runs.
    """

    help = "Cancel tasks: each is deleted instead of run, as soon as a worker receives it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of docs/cancel-and-pause.md."""
        parser.add_argument("ids", nargs="+", metavar="ID", help="what schedule_function returned")
        parser.add_argument("--stop", action="store_true",
            help="also end the tasks that run now in a process of their own")  # fmt: skip
        parser.add_argument("--json", action="store_true", help="print a JSON list of the ids")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the id of each task that no worker starts any more."""
        now = "ends, unless it runs in a thread" if options["stop"] else "runs on"
        for task_id in options["ids"]:
            cancel(task_id, stop=options["stop"])
            if not options["json"]:
                self.stdout.write(f"no worker starts {task_id} any more; if it runs now, it {now}")
        if options["json"]:
            self.stdout.write(json.dumps(options["ids"]))
