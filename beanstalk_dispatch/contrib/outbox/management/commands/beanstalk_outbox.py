"""``manage.py beanstalk_outbox`` sends the messages that wait in the outbox, or shows them."""

from __future__ import annotations

import argparse
import json
import signal
from dataclasses import asdict
from types import FrameType
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import DatabaseError

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.outbox.errors import describe_error
from beanstalk_dispatch.contrib.outbox.relay import Relay
from beanstalk_dispatch.contrib.outbox.status import Waiting, waiting_in
from beanstalk_dispatch.contrib.outbox.store import discard
from beanstalk_dispatch.management.printing import PrintingCommand
from beanstalk_dispatch.problems import start_log

EXIT_UNSENT: Final = 75
"""EX_TEMPFAIL: with ``--once``, something is left."""


class Command(PrintingCommand):
    """The command that runs a relay, or answers a question about the outbox."""

    help = "Send the messages that wait in the outbox, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of docs/outbox.md."""
        only = parser.add_mutually_exclusive_group()
        only.add_argument("--once", action="store_true", help="send what can be sent now, and exit")
        only.add_argument("--status", action="store_true", help="show how many messages wait")
        only.add_argument("--discard", metavar="ID", help="delete the message of this task")
        parser.add_argument("--json", action="store_true", help="with --status: as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the action that the options name."""
        get_config()  # raises what is wrong with it
        if options["json"] and not options["status"]:
            raise CommandError("--json needs --status")
        if options["discard"]:
            self._discard_message(options["discard"])
        elif options["status"]:
            self._show_waiting(_read_waiting(), as_json=options["json"])
        elif options["once"]:
            self._send_once()
        else:
            start_log.log_waiting()
            _run_until_signal()

    def _discard_message(self, task_id: str) -> None:
        if not discard(task_id):
            raise CommandError(f"no message of the task {task_id!r} waits in the outbox")
        self.stdout.write(f"deleted the message of the task {task_id}")

    def _show_waiting(self, waiting: list[Waiting], *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps([asdict(each) for each in waiting]))
            return
        for each in waiting:
            refused = f", {each.refused} of them refused by SQS" if each.refused else ""
            line = f"{each.queue}: {each.count} waiting in {each.database}{refused}"
            if each.count:
                line += f"; the oldest for {each.oldest_seconds:.0f} s"
            if each.delayed:
                line += f"; {each.delayed} due later, the first at {each.next_due_at}"
            self.stdout.write(line)
        if not waiting:
            self.stdout.write("nothing waits in the outbox")

    def _send_once(self) -> None:
        relay = Relay()
        relay.send_available()
        left = sum(each.count for each in _read_waiting())
        self.stdout.write(f"sent {relay.sent}, {left} left")
        if left:
            raise CommandError(
                "something is left: the log says why, unless another process sends it",
                returncode=EXIT_UNSENT,
            )


def _read_waiting() -> list[Waiting]:
    try:
        return [each for name in get_config().outbox_databases for each in waiting_in(name)]
    except DatabaseError as exc:
        raise CommandError(f"the outbox cannot be read: {describe_error(exc)}") from exc


def _run_until_signal() -> None:
    received: list[int] = []

    def on_signal(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, on_signal)
    Relay().run(lambda: bool(received))
