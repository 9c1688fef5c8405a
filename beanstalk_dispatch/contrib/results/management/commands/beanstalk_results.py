"""``manage.py beanstalk_results``: what has become slow, and the deletion of expired results."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, connections

from beanstalk_dispatch.contrib.results.durations import COLUMNS, durations
from beanstalk_dispatch.contrib.results.pruning import prune
from beanstalk_dispatch.logging.log_lines import table
from beanstalk_dispatch.management.arguments import since
from beanstalk_dispatch.management.printing import PrintingCommand


class Command(PrintingCommand):
    """The command that deletes expired rows, and compares durations.

    A scheduler should delete every day.
    """

    help = "Deletes the results in the database that have expired, or shows what is slow."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the two actions, and their options."""
        parser.add_argument(
            "action",
            choices=["prune", "durations"],
            help="prune: delete what has expired. durations: the tasks that have finished, by "
            "function, and how long they took in the same time before",
        )
        parser.add_argument(
            "--since", type=since, default="1h",
            help="durations since then: 30m, 2h, 3d or 2026-11-25T08:00 (default %(default)s)",
        )  # fmt: skip
        parser.add_argument("--json", action="store_true", help="durations as JSON")
        parser.add_argument(
            "--database",
            choices=tuple(connections),
            help="The database alias. The router's by default.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the action that the arguments name."""
        is_prune = options["action"] == "prune"
        try:
            (self._prune_results if is_prune else self._show_durations)(options)
        except DatabaseError as exc:
            verb = "deleted" if is_prune else "read"
            raise CommandError(
                f"the results cannot be {verb}: {exc}; has 'manage.py migrate' run?"
            ) from exc

    def _show_durations(self, options: dict[str, Any]) -> None:
        moment = datetime.fromtimestamp(options["since"], UTC)
        found = durations(moment, options["database"])
        if options["json"]:
            self.stdout.write(json.dumps([each.as_json() for each in found]))
            return
        heading, *lines = table(COLUMNS, [each.cells() for each in found])
        self.stdout.write(self.style.MIGRATE_HEADING(heading))
        for line in lines:
            self.stdout.write(line)

    def _prune_results(self, options: dict[str, Any]) -> None:
        count = 0
        for deleted in prune(options["database"]):
            count += deleted
            if options["verbosity"] > 1:
                self.stdout.write(f"deleted {count:,} so far")
        self.stdout.write(f"deleted {count:,}")
