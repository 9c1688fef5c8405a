"""The outbox, as the core knows it: contrib.outbox registers itself here when Django starts.

Without it, or with BEANSTALK_DISPATCH_OUTBOX=off, nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import OUTBOX, OUTBOX_DATABASES
from beanstalk_dispatch.exceptions import ConfigurationError, InvalidCall
from beanstalk_dispatch.logging.log_lines import joined

from .send import Prepared, Unsent, is_local

APP: Final = "beanstalk_dispatch.contrib.outbox"
"""What INSTALLED_APPS must contain."""

MISSING_APP: Final = (
    f"{OUTBOX.variable} needs the outbox, but {APP!r} is not in INSTALLED_APPS; add it there and "
    "run 'manage.py migrate'"
)


class OutboxRelay(Protocol):
    """Sends what waits in the outbox."""

    sent: int
    """How many messages it has sent."""
    waiting: int
    """How many waited when it last looked."""
    oldest_seconds: float
    """For how long the oldest of them had waited."""

    def run(self, is_stopping: Callable[[], bool]) -> None:
        """Send what waits, again and again until ``is_stopping``."""


class Outbox(Protocol):
    """Stores messages in a database, and sends them from there."""

    def store(
        self, queue: str, prepared: Sequence[Prepared], config: Config, *, using: str
    ) -> None:
        """Store calls in the current transaction of a database. They are sent after its commit.

        Raises SendError if the database does not take them.
        """

    def keep(self, queue: str, unsent: Sequence[Unsent], *, using: str) -> list[Unsent]:
        """Store calls that could not be sent. Returns those that could not be stored either."""

    def relay(self) -> OutboxRelay:
        """A relay of all databases of the outbox."""


_registered: Outbox | None = None


def register(outbox: Outbox) -> None:
    """Have calls stored in ``outbox``."""
    global _registered  # noqa: PLW0603 - one for each process, as Django's apps are
    _registered = outbox


def registered() -> Outbox | None:
    """The outbox; None if its app is not installed."""
    return _registered


def stores(on_commit: bool | str | None, config: Config) -> bool:
    """Whether a call with this ``on_commit`` is stored before it is sent."""
    return config.outbox == "always" and on_commit is not False and not is_local(config)


def store(queue: str, prepared: Sequence[Prepared], config: Config, *, using: str) -> None:
    """Store calls in the outbox of a database: see ``Outbox.store``.

    Raises ConfigurationError without the app, InvalidCall if the database has no outbox, or
    SendError.
    """
    if _registered is None:
        raise ConfigurationError(MISSING_APP)
    if using not in config.outbox_databases:
        raise InvalidCall(
            f"the database {using!r} has no outbox; {OUTBOX_DATABASES.variable} lists "
            f"{joined(config.outbox_databases)}"
        )
    _registered.store(queue, prepared, config, using=using)


def keep(queue: str, unsent: Sequence[Unsent], config: Config, *, using: str) -> list[Unsent]:
    """Store calls that could not be sent after a commit. Returns those that were not stored."""
    if _registered is None:  # the check E008 reports it
        return list(unsent)
    alias = using if using in config.outbox_databases else config.outbox_databases[0]
    return _registered.keep(queue, unsent, using=alias)
