"""``manage.py beanstalk_results prune``: delete the results in the database that have expired."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, connections

from beanstalk_dispatch.contrib.results.pruning import prune
from beanstalk_dispatch.management.printing import PrintingCommand


class Command(PrintingCommand):
    """The command that deletes expired rows. A scheduler should run it every day."""

    help = "Deletes the results in the database that have expired."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the one action that there is."""
        parser.add_argument("action", choices=["prune"])
        parser.add_argument(
            "--database",
            choices=tuple(connections),
            help="The database alias. The router's by default.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Delete in batches, and say how many rows there were."""
        try:
            self._prune_results(options)
        except DatabaseError as exc:
            raise CommandError(
                f"the results cannot be deleted: {exc}; has 'manage.py migrate' run?"
            ) from exc

    def _prune_results(self, options: dict[str, Any]) -> None:
        count = 0
        for deleted in prune(options["database"]):
            count += deleted
            if options["verbosity"] > 1:
                self.stdout.write(f"deleted {count:,} so far")
        self.stdout.write(f"deleted {count:,}")
