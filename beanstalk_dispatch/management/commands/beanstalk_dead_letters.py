"""``manage.py beanstalk_dead_letters list|show|redrive|discard|purge`` handles dead letters."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from typing import Any, Final

from django.core.management.base import CommandError

from beanstalk_dispatch.conf.variables import DEAD_LETTER_QUEUE, QUEUES
from beanstalk_dispatch.dead_letters.dead_letter import MOVED_BY_SQS, Filters
from beanstalk_dispatch.dead_letters.lines import (
    dead_letter_as_json,
    dead_letter_lines,
    report_as_json,
    report_lines,
    sample_as_json,
    sample_lines,
)
from beanstalk_dispatch.dead_letters.queue import SAMPLE_SIZE, DeadLetterQueue, redrive_each
from beanstalk_dispatch.dead_letters.receiving import HIDE_SECONDS
from beanstalk_dispatch.dead_letters.sweep import Steps, SweepOptions, SweepReport
from beanstalk_dispatch.dead_letters.terminal import ProgressLine, Stop, stoppable
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.management.arguments import LARGEST, integer, number, since
from beanstalk_dispatch.management.printing import PrintingCommand
from beanstalk_dispatch.queues.waiting import own_name, queue_statuses
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS

EXIT_INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as a shell has it."""
_MIN_HIDE_SECONDS: Final = 30


rate: Final = number(sys.float_info.min, LARGEST, expected="letters per second")
"""Reads messages per second as an argparse type."""


class Command(PrintingCommand):
    """The command that parses the arguments, and hands them to DeadLetterQueue."""

    help = "List, show, redrive, discard or purge the letters of a dead-letter queue."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of docs/dead-letters.md."""
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="show a sample, in groups")
        showing = actions.add_parser("show", help="show one letter, with its arguments")
        redriving = actions.add_parser("redrive", help="send letters back to their queues")
        discarding = actions.add_parser("discard", help="delete letters")
        purging = actions.add_parser("purge", help="delete every letter")
        showing.add_argument("id", metavar="ID", help="id of the task, or of SQS")
        for each in (listing, showing, redriving, discarding, purging):
            each.add_argument(
                "queue", nargs="?", metavar="QUEUE",
                help="the dead-letter queue; without it list, show and redrive take all, and the "
                "others need it if there are several",
            )  # fmt: skip
            each.add_argument("--json", action="store_true", help="print JSON")
        listing.add_argument(
            "--sample", type=integer(1, 100_000), default=SAMPLE_SIZE,
            help="letters to look at (default %(default)s)",
        )  # fmt: skip
        for each in (listing, redriving, discarding):
            _add_filters(each)
        for each in (listing, showing, redriving, discarding):
            each.add_argument(
                "--hide", type=integer(_MIN_HIDE_SECONDS, MAX_VISIBILITY_SECONDS),
                default=HIDE_SECONDS,
                help="seconds for which a letter that is looked at is hidden, if the command is "
                "killed (default %(default)s)",
            )  # fmt: skip
        for each in (redriving, discarding):
            _add_run_arguments(each)
        for each in (discarding, purging):
            each.add_argument(
                "--confirm", metavar="QUEUE", help="the queue's name, instead of typing it"
            )
        redriving.add_argument("--to", metavar="QUEUE", help="send all letters to this queue")
        redriving.add_argument(
            "--reset-attempts", action="store_true", help="give the task all its retries again"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the action that the arguments name."""
        actions = {
            "list": self._list_dead_letters,
            "show": self._show_dead_letter,
            "redrive": self._redrive,
            "discard": self._discard,
            "purge": self._purge_queue,
        }
        actions[options["action"]](options)

    def _list_dead_letters(self, options: dict[str, Any]) -> None:
        found = []
        with self._stop_on_interrupt() as stop:
            for name in _names_from(options):
                dead_letters = DeadLetterQueue.open(name)
                sample = dead_letters.sample(
                    _filters_from(options), limit=options["sample"], hide=options["hide"],
                    is_stopping=lambda: bool(stop),
                )  # fmt: skip
                found.append(sample_as_json(dead_letters, sample))
                if not options["json"]:
                    heading, *lines = sample_lines(dead_letters, sample)
                    self._write_lines([self.style.MIGRATE_HEADING(heading), *lines])
        if options["json"]:
            self.stdout.write(json.dumps(found))

    def _show_dead_letter(self, options: dict[str, Any]) -> None:
        dead_letter = None
        with self._stop_on_interrupt() as stop:
            for name in _names_from(options):
                dead_letter = dead_letter or DeadLetterQueue.open(name).find(
                    options["id"], hide=options["hide"], is_stopping=lambda: bool(stop)
                )
        if dead_letter is None:
            raise CommandError(
                f"no letter with the id {options['id']!r} was found; another process may be "
                "looking at it, or it is no longer there"
            )
        if options["json"]:
            self.stdout.write(json.dumps(dead_letter_as_json(dead_letter, is_full=True)))
        else:
            self._write_lines(dead_letter_lines(dead_letter))

    def _redrive(self, options: dict[str, Any]) -> None:
        steps = redrive_each(
            _names_from(options), _filters_from(options), _run_options(options), to=options["to"],
            reset_attempts=options["reset_attempts"],
        )  # fmt: skip
        self._run_steps(steps, "redriven", options)

    def _discard(self, options: dict[str, Any]) -> None:
        dead_letters = _open_queue(options)
        if not options["dry_run"]:
            self._confirm_by_name(dead_letters, options, "the letters that match")
        steps = dead_letters.discard(_filters_from(options), _run_options(options))
        self._run_steps(steps, "discarded", options)

    def _purge_queue(self, options: dict[str, Any]) -> None:
        dead_letters = _open_queue(options)
        about = dead_letters.about()
        self._confirm_by_name(dead_letters, options, f"all of about {about} letters")
        dead_letters.purge()
        if options["json"]:
            self.stdout.write(json.dumps({"purged": dead_letters.queue.name, "about": about}))
        else:
            self.stdout.write(f"SQS purges {dead_letters.queue.name}, which takes up to a minute")

    def _run_steps(self, steps: Steps, verb: str, options: dict[str, Any]) -> None:
        """Take the steps of a run until it is over or the user ends it, and show the result."""
        report = SweepReport()
        line = ProgressLine(sys.stderr, verb)
        with self._stop_on_interrupt() as stop, closing(line), closing(steps):
            for report in steps:
                line.draw(report)
                if stop:
                    break
        if options["json"]:
            self.stdout.write(json.dumps(report_as_json(report)))
        else:
            self._write_lines(report_lines(report, verb=verb, dry_run=options["dry_run"]))
        if stop:
            raise CommandError(
                "interrupted; run the command again for what is left", returncode=EXIT_INTERRUPTED
            )
        if report.error:
            raise CommandError(f"{report.error}; run the command again for what is left")
        if not report.is_complete:
            raise CommandError("not every letter that matches could be handled; see above")

    @contextmanager
    def _stop_on_interrupt(self) -> Iterator[Stop]:
        try:
            with stoppable() as stop:
                yield stop
        except KeyboardInterrupt:
            raise CommandError(
                "interrupted twice; letters that were looked at are hidden until the time of "
                "--hide is over",
                returncode=EXIT_INTERRUPTED,
            ) from None

    def _confirm_by_name(
        self, dead_letters: DeadLetterQueue, options: dict[str, Any], what: str
    ) -> None:
        """Have the user type the queue's name. Raise CommandError if it is another one."""
        name, typed = dead_letters.queue.name, options["confirm"]
        if typed is None:
            if not sys.stdin.isatty():
                raise CommandError(f"this cannot be undone; confirm it with --confirm {name}")
            self.stderr.write(f"This deletes {what} on {name}, and cannot be undone.")
            typed = input("Type the name of the queue to continue: ").strip()
        if typed != name:
            raise CommandError(f"nothing was deleted: {typed!r} is not {name!r}")

    def _write_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(line)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    several = "; may be given several times"
    # fmt: off
    add("--function", action="append", default=[],
        help=f"only letters of this function{several}")
    add("--exception", action="append", default=[],
        help="only letters with this exception: its type, or with a colon the start of its type "
             f"and message; {MOVED_BY_SQS!r} for letters without a reason{several}")
    add("--queue", dest="source", action="append", default=[], metavar="SOURCE",
        help=f"only letters that came from this queue{several}")
    add("--since", type=since, help="only letters since then: 30m, 2h, 3d or 2026-11-25T08:00")
    add("--id", action="append", default=[], help=f"only this letter{several}")
    add("--argument", default="", metavar="TEXT",
        help="only letters with this text in the JSON of their arguments, such as a customer's id")
    # fmt: on


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=rate, help="letters per second at most")
    parser.add_argument("--limit", type=integer(1, 10**9), help="end after this number of letters")
    parser.add_argument("--dry-run", action="store_true", help="only count what would be done")


def _filters_from(options: dict[str, Any]) -> Filters:
    return Filters(
        functions=frozenset(options["function"]),
        exceptions=frozenset(options["exception"]),
        queues=frozenset(map(own_name, options["source"])),
        since=options["since"],
        ids=frozenset(options["id"]),
        argument=options["argument"],
    )


def _run_options(options: dict[str, Any]) -> SweepOptions:
    return SweepOptions(**{each.name: options[each.name] for each in fields(SweepOptions)})


def _names_from(options: dict[str, Any]) -> list[str]:
    """Return the queue that the user names, or else every dead-letter queue that is known."""
    return [options["queue"]] if options["queue"] else _known_queues()


def _known_queues() -> list[str]:
    statuses = queue_statuses()
    names = [each.name for each in statuses if each.is_dead_letter_queue]
    if not names:
        problems = "".join(f"; {each.name}: {each.problem}" for each in statuses if each.problem)
        raise CommandError(
            f"no dead-letter queue is known: no queue in {QUEUES.variable} shows a "
            f"redrive policy, and {DEAD_LETTER_QUEUE.variable} is not set; name a "
            f"queue{problems}"
        )
    return names


def _open_queue(options: dict[str, Any]) -> DeadLetterQueue:
    name, *others = _names_from(options)
    if others:
        raise CommandError(
            f"there are several dead-letter queues; type: beanstalk_dead_letters "
            f"{options['action']} QUEUE, where QUEUE is one of {joined([name, *others])}"
        )
    return DeadLetterQueue.open(name)
