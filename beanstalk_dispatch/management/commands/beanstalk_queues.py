"""``manage.py beanstalk_queues [QUEUE …]`` shows the figures of the queues, and pauses them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any, Final

from django.core.management.base import CommandError

from beanstalk_dispatch.conf.variables import QUEUES
from beanstalk_dispatch.dead_letters.terminal import Stop, stoppable
from beanstalk_dispatch.logging.log_lines import duration, table
from beanstalk_dispatch.management.arguments import number
from beanstalk_dispatch.management.printing import PrintingCommand
from beanstalk_dispatch.queues.running import (
    RUN_COLUMNS,
    TASK_COLUMNS,
    WORKER_COLUMNS,
    what_runs,
)
from beanstalk_dispatch.queues.waiting import (
    COLUMNS,
    QueueStatus,
    own_name,
    pause,
    pause_limit,
    queue_statuses,
    resume,
)

_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"


interval: Final = number(1, 3600, expected="1 to 3600 seconds")
"""Reads seconds between two requests as an argparse type."""


class Command(PrintingCommand):
    """The command that shows the queues once, or again and again."""

    help = "Show the messages in each queue and in its dead-letter queue."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of docs/dead-letters.md."""
        parser.add_argument(
            "queues", nargs="*", metavar="QUEUE", help="alias or name (default: all aliases)"
        )
        action = parser.add_mutually_exclusive_group()
        action.add_argument("--pause", action="store_true", help="pause these queues first")
        action.add_argument("--resume", action="store_true", help="resume these queues first")
        action.add_argument(
            "--running", action="store_true",
            help="show the workers, the tasks that run now and the next runs of periodic tasks",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="print JSON, one line a look")
        parser.add_argument("--watch", action="store_true", help="look again until Ctrl-C")
        parser.add_argument(
            "--interval", type=interval, default=2.0,
            help="seconds between two looks of --watch (default %(default)g)",
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        """Pause or resume the queues if asked to, and show them until it is enough."""
        if options["pause"] or options["resume"]:
            self._pause_or_resume(options)
        show = self._show_running if options["running"] else self._show_queues
        with stoppable() as stop:
            statuses = show(options)
            while options["watch"] and not _wait_or_stop(options["interval"], stop):
                statuses = show(options)
        if not options["watch"] and any(each.problem for each in statuses):
            raise CommandError("not every queue can be shown; see above")

    def _pause_or_resume(self, options: dict[str, Any]) -> None:
        if not options["queues"]:
            raise CommandError("name the queues to pause or resume")
        for name in options["queues"]:
            queue_name = pause(name) if options["pause"] else resume(name)
            if options["pause"] and (limit := pause_limit(queue_name)):
                self.stderr.write(self.style.WARNING(limit))

    def _show_queues(self, options: dict[str, Any]) -> list[QueueStatus]:
        statuses = queue_statuses(options["queues"])
        if not statuses:
            raise CommandError(f"name a queue, or set {QUEUES.variable}")
        if options["json"]:
            self.stdout.write(json.dumps([as_json(each) for each in statuses]))
            return statuses
        self._clear_screen(options)
        self._write_table(COLUMNS, [(each.cells(), each.has_letters) for each in statuses])
        for each in statuses:
            if each.paused_since is not None:
                since = duration(time.time() - each.paused_since)
                words = f"{each.name} has been paused for {since}; --resume ends that"
                self.stdout.write(self.style.WARNING(words))
        self._show_problems(statuses)
        return statuses

    def _show_running(self, options: dict[str, Any]) -> list[QueueStatus]:
        found = what_runs([own_name(each) for each in options["queues"]])
        if options["json"]:
            self.stdout.write(json.dumps(found.as_json()))
            return []
        self._clear_screen(options)
        self._write_table(WORKER_COLUMNS, [(each.cells(), each.is_late) for each in found.workers])
        self.stdout.write("")
        self._write_table(TASK_COLUMNS, [(each.cells(), each.is_late) for each in found.tasks])
        if found.left_out:
            self.stdout.write(f"… and {found.left_out} more")
        if found.next_runs:
            self.stdout.write("")
            self._write_table(RUN_COLUMNS, [(each.cells(), False) for each in found.next_runs])
        if found.problem:
            self.stderr.write(self.style.WARNING(found.problem))
        return []

    def _clear_screen(self, options: dict[str, Any]) -> None:
        if options["watch"] and self.stdout.isatty():
            self.stdout.write(_HOME_AND_CLEAR, ending="")

    def _write_table(
        self, columns: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]]
    ) -> None:
        """Write a table; each row with whether it is red."""
        heading, *lines = table(columns, [cells for cells, _ in rows])
        self.stdout.write(self.style.MIGRATE_HEADING(heading))
        for line, (_, is_red) in zip(lines, rows, strict=True):
            self.stdout.write(self.style.ERROR(line) if is_red else line)

    def _show_problems(self, statuses: Sequence[QueueStatus]) -> None:
        for each in statuses:
            if each.problem:
                self.stderr.write(self.style.WARNING(f"{each.name}: {each.problem}"))
        for reason in dict.fromkeys(each.pause_problem for each in statuses if each.pause_problem):
            self.stderr.write(self.style.WARNING(f"not known which queues are paused: {reason}"))


def _wait_or_stop(seconds: float, stop: Stop) -> bool:
    """Wait for some seconds; whether the user has asked for the end."""
    until = time.monotonic() + seconds
    while not stop and time.monotonic() < until:
        time.sleep(0.1)
    return bool(stop)


def as_json(status: QueueStatus) -> dict[str, Any]:
    """Return a queue as the JSON object of ``--json``. A fact that is not known is null."""
    found = status.attributes
    return {
        "name": status.name,
        "alias": status.alias or None,
        "visible": found and found.visible,
        "in_flight": found and found.in_flight,
        "delayed": found and found.delayed,
        "visibility_timeout": found and found.visibility_timeout,
        "retention": found and found.retention,
        "dead_letter_queue": found and found.dead_letter_queue,
        "max_receives": found and found.max_receives,
        "is_dead_letter_queue": status.is_dead_letter_queue,
        "sources": list(status.sources),
        "paused_since": status.paused_since,
        "pause_problem": status.pause_problem or None,
        "problem": status.problem or None,
    }
