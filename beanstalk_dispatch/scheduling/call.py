"""Call: one call of a task, as a project schedules it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeAlias

from beanstalk_dispatch.running.definitions.parameters import advice_on
from beanstalk_dispatch.safe_task import SafeTask


class NamedByPath(Protocol):
    """A Task of django.tasks. Its name is its dotted path, unless the table lists that path."""

    @property
    def module_path(self) -> str:
        """As in ``shop.tasks.send_welcome``."""


Function: TypeAlias = "str | Callable[..., Any] | SafeTask | NamedByPath"
"""The function that ``schedule_function`` takes: see ``Call.function``."""


@dataclass(slots=True)
class Call:
    """One call of a listed task, with how SQS should deliver it. No argument is in its repr."""

    function: Function
    """A name in the dispatch table; a function, SafeTask subclass or SafeTask instance whose dotted
    path the table lists; or a Django ``@task`` that may run."""
    args: Sequence[Any] = field(default=(), repr=False)
    """JSON values."""
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """JSON values by name."""
    delay: float | timedelta = field(default=0, kw_only=True)
    """Seconds, or a timedelta."""
    group_id: str | None = field(default=None, kw_only=True)
    """The message group of a FIFO queue, or the tenant of a fair queue.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
    """
    deduplication_id: str | None = field(default=None, kw_only=True)
    """For FIFO queues only. The task id by default."""
    expires: float | timedelta | datetime | None = field(default=None, kw_only=True)
    """When the task is worthless, so that it is deleted instead of being run.

    Seconds or a timedelta count from the moment at which the task is due, or a datetime.
    """
    unique: str | None = field(default=None, repr=False, kw_only=True)
    """A key of the task, which the message of one call holds at a time.

    While it waits, another call with that key is not sent, and gets the id of the first.
    """
    unique_for: float | timedelta | None = field(default=None, kw_only=True)
    """The longest time for which the key is held, in seconds or as a timedelta.

    An hour by default.
    """
    unique_until: str | None = field(default=None, kw_only=True)
    """``start``, the default, frees the key when the task starts, ``end`` when it has ended."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, kw_only=True)
    """Strings that travel with the message. An observer reads them in ``message.headers``."""
    sent_at: float | None = field(default=None, kw_only=True)
    """When the task was scheduled, in Unix seconds. The present time by default."""


_make: Final = Call.__init__


@functools.wraps(_make)
def _make_with_advice(call: Call, *args: Any, **options: Any) -> None:
    try:
        _make(call, *args, **options)
    except TypeError as exc:
        raise TypeError("; ".join([str(exc), *advice_on(options, "name")])) from None


Call.__init__ = _make_with_advice  # type: ignore[assignment,method-assign]
