"""Outbox: the core's view of the outbox. contrib.outbox registers itself here when Django starts.

Without it, or with BEANSTALK_DISPATCH_OUTBOX=off, nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from django.db import DEFAULT_DB_ALIAS

from beanstalk_dispatch.conf import Config, variables
from beanstalk_dispatch.exceptions import ConfigurationError, InvalidCall
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.messages.message import is_name

from .destination import Destination
from .prepare import Prepared
from .send import Send, Unsent

APP: Final = "beanstalk_dispatch.contrib.outbox"
"""The app that INSTALLED_APPS must contain."""

MISSING_APP: Final = (
    f"{variables.OUTBOX.variable} needs the outbox, but {APP!r} is not in INSTALLED_APPS; add it "
    "there and run 'manage.py migrate'"
)


class OutboxRelay(Protocol):
    """Sends the messages that wait in the outbox."""

    sent: int
    """The number of messages that it has sent."""
    waiting: int
    """The number of messages that waited when it last looked."""
    oldest_seconds: float
    """The time for which the oldest of them had waited."""

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Send waiting messages, again and again until ``is_stopping``."""


class Outbox(Protocol):
    """Stores messages in a database, and sends them from there."""

    def store(self, destination: Destination, prepared: Sequence[Prepared], *, using: str) -> None:
        """Store calls in the current transaction of a database. They are sent after its commit.

        Raise SendError if the database does not take them.
        """

    def keep(
        self, destination: Destination, unsent: Sequence[Unsent], *, using: str
    ) -> list[Unsent]:
        """Store calls that could not be sent. Return those that could not be stored either."""

    def cancel(self, task_id: str) -> bool:
        """Delete the message of a task. Return False if there is none that is certainly unsent."""

    def relay(self) -> OutboxRelay:
        """Make a relay of all databases of the outbox."""


_registered: Outbox | None = None


def register(outbox: Outbox) -> None:
    """Have calls stored in ``outbox``."""
    global _registered  # noqa: PLW0603 - one for each process, as Django's apps are
    _registered = outbox


def registered() -> Outbox | None:
    """Return the outbox; None if its app is not installed."""
    return _registered


def database_of(on_commit: bool | str | None) -> str:
    """Return the alias of the database for whose commit such a call waits."""
    return on_commit if isinstance(on_commit, str) else DEFAULT_DB_ALIAS


class _StoredCalls:
    """The calls of BEANSTALK_DISPATCH_OUTBOX=always: a place of ``later``."""

    def takes(self, destination: Destination, on_commit: bool | str | None) -> bool:
        """Return True unless ``on_commit=False`` asks for a send at once."""
        return destination.config.outbox == "always" and on_commit is not False

    def take(
        self,
        destination: Destination,
        prepared: Sequence[Prepared],
        on_commit: bool | str | None,
        send: Send,
    ) -> bool:
        """Store calls in the outbox of a database: see ``Outbox.store``.

        Raise ConfigurationError without the app, InvalidCall if the database has no outbox, or
        SendError.
        """
        databases, variable = (
            destination.config.outbox_databases,
            variables.OUTBOX_DATABASES.variable,
        )
        using = database_of(on_commit)
        if _registered is None:
            raise ConfigurationError(MISSING_APP)
        if using not in databases:
            raise InvalidCall(
                f"the database {using!r} has no outbox; {variable} lists {joined(databases)}"
            )
        _registered.store(destination, prepared, using=using)
        return True


OUTBOX: Final = _StoredCalls()


def cancel(task_id: str, config: Config) -> bool:
    """Cancel a task whose message waits in the outbox. Return False if none does."""
    if _registered is None or not config.uses_outbox or not is_name(task_id):
        return False
    return _registered.cancel(task_id)


def keep(destination: Destination, unsent: Sequence[Unsent], *, using: str) -> list[Unsent]:
    """Store calls that could not be sent after a commit. Return those that were not stored."""
    if _registered is None:  # the check E008 reports it
        return list(unsent)
    databases = destination.config.outbox_databases
    alias = using if using in databases else databases[0]
    return _registered.keep(destination, unsent, using=alias)
