"""``manage.py beanstalk_schedule QUEUE FUNCTION [ARG…]`` schedules one task by hand."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from typing import Any

from beanstalk_dispatch.client import Call, schedule
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.management.printing import PrintingCommand
from beanstalk_dispatch.running.definitions.dispatch_table import entry, import_early


def value(argument: str) -> Any:
    """Return the value of an argument: its JSON, or the string itself if it is not JSON."""
    try:
        return json.loads(argument)
    except ValueError:
        return argument


class Command(PrintingCommand):
    """Parse the arguments of one call and schedule it."""

    help = "Schedule one task and print its id. It is sent at once, never through the outbox."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("queue", help="alias, name, URL or ARN of a queue")
        parser.add_argument("function", help="a name in the dispatch table")
        parser.add_argument(
            "args",
            nargs="*",
            default=[],  # without it argparse says that ARG is required
            metavar="ARG",
            help="JSON or a string; key=ARG for a keyword argument",
        )
        parser.add_argument("--delay", type=float, default=0, help="delay in seconds")
        parser.add_argument("--group-id", help="message group, on a FIFO queue or a fair queue")

    def handle(self, *args: Any, **options: Any) -> None:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for argument in args:
            name, equals, rest = argument.partition("=")
            if equals and name.isidentifier():
                named[name] = value(rest)
            else:
                positional.append(value(argument))
        function = options["function"]
        with suppress(Exception):  # schedule() compares the call with a task that is imported
            import_early(function, entry, function, get_config())
        call = Call(
            function,
            positional,
            named,
            delay=options["delay"],
            group_id=options["group_id"],
        )
        task_id = schedule(options["queue"], call, on_commit=False)
        try:
            self.stdout.write(task_id)
            self.stdout.flush()
        except OSError:  # such as a full disk; nobody should send it a second time
            self.stderr.write(f"the task was sent: {task_id}")
            raise
