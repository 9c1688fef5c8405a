"""Letter: what one message of a dead-letter queue says, written by this package or moved by SQS."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_aware, make_aware

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import NAME
from beanstalk_dispatch.exceptions import MessageError
from beanstalk_dispatch.logging.log_lines import escaped, escaped_lines
from beanstalk_dispatch.messages.message import Message, read_dead_letter
from beanstalk_dispatch.sqs.queue import Received

MOVED_BY_SQS: Final = "moved by SQS"
"""Stands for the exception of a letter that SQS moved, because SQS does not record a reason."""

SOURCE_ATTRIBUTE: Final = "DeadLetterQueueSourceArn"
"""SQS's attribute with the ARN of the queue that it moved the message from.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
"""

_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(slots=True, kw_only=True)
class Letter:
    """One dead letter. Every value comes from the queue and is not verified, but ``signature``.

    What is to be shown is escaped, but for the line breaks of the traceback. ``received``, ``body``
    and ``message`` are as they came.
    """

    received: Received = field(repr=False)
    id: str
    """The task id, or the id of SQS where the body has none."""
    function: str
    """Empty if the body cannot be read."""
    queue: str
    """The own name of the queue that it came from; empty if SQS does not say."""
    at: float
    """When the task failed for the last time. For a letter that SQS moved: when it was sent."""
    outcome: str = ""
    exception: str = MOVED_BY_SQS
    """The type and the message of the exception."""
    traceback: str = field(default="", repr=False)
    attempts: int = 1
    receive_count: int
    """How often it was received in its own queue; of a letter that SQS moved, in all."""
    body: str = field(repr=False)
    """The message as it was scheduled, with its signature."""
    message: Message | None = None
    """What the body says; None if it cannot be read."""
    problem: str = ""
    """Why the body cannot be read."""
    signature: str = "not checked"
    """``valid``, ``not checked`` without signing keys here, or why it is refused."""
    is_from_package: bool = False
    """Whether this package sent it, with the reason, or SQS moved it."""

    @property
    def message_id(self) -> str:
        """The id that SQS gave the letter."""
        return self.received.message_id

    @property
    def exception_type(self) -> str:
        """The exception without its message."""
        return self.exception.partition(":")[0]

    @property
    def when(self) -> datetime:
        """``at`` as a datetime in UTC."""
        return datetime.fromtimestamp(self.at, UTC)


def read_letter(received: Received, config: Config, *, sources: Iterable[str] = ()) -> Letter:
    """What was received from a dead-letter queue, whatever it is.

    ``sources`` has the names of the queues whose redrive policy names the dead-letter queue.
    """
    found = read_dead_letter(received.body)
    letter = (
        _moved_by_sqs(received, list(sources))
        if found is None
        else _letter_of_ours(received, *found)
    )
    try:
        letter.message = Message.decode(
            received.body, queue=letter.queue, default_id=received.message_id
        )
    except MessageError as exc:
        letter.problem = str(exc)
    else:
        letter.function, letter.id = letter.message.function, letter.message.id
    if found is None and letter.message:
        letter.attempts = letter.message.attempt
    if config.signing_keys:
        letter.signature = _check_signature(letter, config)
    return letter


def _moved_by_sqs(received: Received, sources: list[str]) -> Letter:
    source = received.attributes.get(SOURCE_ATTRIBUTE, "").rpartition(":")[2]
    if not source and len(sources) == 1:
        source = sources[0]
    return Letter(
        received=received,
        id=received.message_id,
        function="",
        queue=source,
        at=int(received.attributes.get("SentTimestamp", "0")) / 1000,
        receive_count=received.receive_count,
        body=received.body,
    )


def _letter_of_ours(received: Received, reason: Mapping[str, Any], body: str) -> Letter:
    """A letter of ours. Its members may have any type, because a stranger may have written it."""
    at, attempts, receives = reason.get("at"), reason["attempts"], reason.get("receive_count")
    queue = _string_member(reason, "queue")
    return Letter(
        received=received,
        id=_string_member(reason, "id") or received.message_id,
        function=_string_member(reason, "function"),
        queue=queue if NAME.fullmatch(queue) else "",
        at=at if _is_time(at) else int(received.attributes.get("SentTimestamp", "0")) / 1000,
        outcome=_string_member(reason, "outcome"),
        exception=_string_member(reason, "exception") or _string_member(reason, "outcome"),
        traceback=_string_member(reason, "traceback", escape=escaped_lines),
        attempts=attempts,
        receive_count=receives if isinstance(receives, int) else 1,
        body=body,
        is_from_package=True,
    )


def _string_member(
    reason: Mapping[str, Any], name: str, *, escape: Callable[[str], str] = escaped
) -> str:
    value = reason.get(name)
    return escape(value) if isinstance(value, str) else ""


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value < time.time() + 86400


def _check_signature(letter: Letter, config: Config) -> str:
    try:
        Message.decode(letter.received.body, queue=letter.queue, keys=config.signing_keys)
    except MessageError as exc:
        return str(exc)
    return "valid"


# --- filters and groups ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which letters are meant; an empty filter lets every letter through."""

    function: str = ""
    exception: str = ""
    """A type such as ``ValueError``, or with a colon the start of the type and its message."""
    queue: str = ""
    """The own name of the queue that it came from."""
    since: float | None = None
    """In Unix seconds."""
    ids: frozenset[str] = frozenset()
    """Task ids or ids of SQS."""

    def __bool__(self) -> bool:
        return bool(
            self.function or self.exception or self.queue or self.ids or self.since is not None
        )

    def match(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        return (
            self.function in {"", letter.function}
            and self._match_exception(letter)
            and self.queue in {"", letter.queue}
            and (self.since is None or letter.at >= self.since)
            and (not self.ids or not self.ids.isdisjoint({letter.id, letter.message_id}))
        )

    def _match_exception(self, letter: Letter) -> bool:
        if ":" in self.exception:
            return letter.exception.startswith(self.exception)
        return self.exception in {"", letter.exception_type}


@dataclass(slots=True, kw_only=True)
class Group:
    """The letters of a sample that have a function, an exception's type and a queue in common."""

    function: str
    exception: str
    queue: str
    count: int = 0
    oldest: datetime
    newest: datetime


def grouped(letters: Iterable[Letter]) -> list[Group]:
    """The letters in groups, the largest first."""
    groups: dict[tuple[str, str, str], Group] = {}
    for letter in letters:
        key = letter.function, letter.exception_type, letter.queue
        group = groups.get(key)
        if group is None:
            function, exception, queue = key
            group = groups[key] = Group(
                function=function, exception=exception, queue=queue,
                oldest=letter.when, newest=letter.when,
            )  # fmt: skip
        group.count += 1
        group.oldest = min(group.oldest, letter.when)
        group.newest = max(group.newest, letter.when)
    return sorted(groups.values(), key=lambda each: (-each.count, each.function, each.exception))


def parse_since(value: str) -> float:
    """A time in Unix seconds: an age such as ``2h`` or ``3d``, or a date and time in ISO 8601.

    A time without a zone is in the project's time zone. Raises ValueError.
    """
    if match := _AGE.fullmatch(value):
        return time.time() - int(match[1]) * _SECONDS[match[2]]
    day = parse_date(value)
    found = datetime(day.year, day.month, day.day) if day else parse_datetime(value)  # noqa: DTZ001
    if found is None:
        raise ValueError(f"{value!r} is neither an age (30m, 2h, 3d) nor a date (2026-11-25T08:00)")
    return (found if is_aware(found) else make_aware(found)).timestamp()
