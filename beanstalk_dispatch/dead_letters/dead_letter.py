"""A dead letter, sent by this package or moved by SQS; filters and groups of dead letters."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeGuard

from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_aware, make_aware

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import NAME
from beanstalk_dispatch.exceptions import BadSignature, MessageError
from beanstalk_dispatch.logging.log_lines import duration, escaped, escaped_lines
from beanstalk_dispatch.messages.message import Message, read_dead_letter
from beanstalk_dispatch.sqs.queue import Received

MOVED_BY_SQS: Final = "moved by SQS"
"""The exception of a dead letter that SQS moved, because SQS does not record a reason."""

UNKNOWN: Final = "unknown"

SOURCE_ATTRIBUTE: Final = "DeadLetterQueueSourceArn"
"""SQS's attribute with the ARN of the queue that it moved the message from.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
"""

_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(slots=True, kw_only=True)
class ReceivedDeadLetter:
    """One message of a dead-letter queue, for display. Only its ``signature`` is verified.

    Every other value comes from the queue. The values for display are escaped, but for the line
    breaks of the traceback. ``received``, ``body`` and ``message`` are as they came.
    """

    received: Received = field(repr=False)
    id: str
    """The task id, or the id of SQS where the body has none."""
    function: str
    """The name of the task; empty if the body cannot be read."""
    queue: str
    """The own name of the queue that it came from; empty if SQS does not say."""
    at: float
    """The time of the task's last failure.

    If SQS moved the message: the time at which it was sent.
    """
    outcome: str = ""
    exception: str = MOVED_BY_SQS
    """The type and the message of the exception."""
    traceback: str = field(default="", repr=False)
    attempts: int = 1
    receive_count: int
    """The number of receives in its own queue; if SQS moved the message, of all receives."""
    body: str = field(repr=False)
    """The message as it was scheduled, with its signature."""
    message: Message | None = None
    """The message in the body; None if the body cannot be read."""
    problem: str = ""
    """The reason why the body cannot be read."""
    signature: str = "not checked"
    """The word ``valid``, ``not checked`` without signing keys here, or the reason of a refusal."""
    is_from_package: bool = False
    """True if this package sent it, with the reason; False if SQS moved it."""

    @property
    def message_id(self) -> str:
        """The id that SQS gave the dead letter."""
        return self.received.message_id

    def cells(self) -> list[str]:
        """Return the cells of its row below COLUMNS."""
        return [self.id, self.function or UNKNOWN, str(self.attempts), age(self.at), self.exception]

    def facts(self, *, has_arguments: bool) -> dict[str, str]:
        """Return the facts to show by name, with the arguments of its task if they are wanted."""
        facts = {
            "id": self.id,
            "SQS id": self.message_id,
            "function": self.function or UNKNOWN,
            "queue": self.queue or UNKNOWN,
            "outcome": self.outcome or UNKNOWN,
            "exception": self.exception,
            "attempts": str(self.attempts),
            "receives": str(self.receive_count),
            "failed" if self.is_from_package else "sent": f"{self.when:%Y-%m-%d %H:%M:%S} UTC",
            "signature": self.signature,
        }
        if self.problem:
            facts["problem"] = self.problem
        if has_arguments and self.message:
            facts["args"] = escaped(_to_json(self.message.args))
            facts["kwargs"] = escaped(_to_json(self.message.kwargs))
        elif has_arguments:
            facts["body"] = escaped(self.body)
        return facts

    @property
    def arguments(self) -> str:
        """The arguments as JSON, as they are shown; the body if it cannot be read."""
        if self.message is None:
            return self.body
        return _to_json([self.message.args, self.message.kwargs])

    @property
    def exception_type(self) -> str:
        """The exception without its message."""
        return self.exception.partition(":")[0]

    @property
    def when(self) -> datetime:
        """The time ``at`` as a datetime in UTC."""
        return datetime.fromtimestamp(self.at, UTC)


def dead_letter_of(
    received: Received, config: Config, *, sources: Iterable[str] = ()
) -> ReceivedDeadLetter:
    """Read any message that was received from a dead-letter queue.

    ``sources`` has the names of the queues whose redrive policy names the dead-letter queue.
    """
    found = read_dead_letter(received.body)
    dead_letter = (
        _moved_by_sqs(received, list(sources))
        if found is None
        else _sent_by_package(received, *found)
    )
    try:
        dead_letter.message = Message.decode(
            received.body, queue=dead_letter.queue, default_id=received.message_id
        )
    except MessageError as exc:
        dead_letter.problem = str(exc)
    else:
        dead_letter.function, dead_letter.id = dead_letter.message.function, dead_letter.message.id
    if found is None and dead_letter.message:
        dead_letter.attempts = dead_letter.message.attempt
    if config.signing_keys:
        dead_letter.signature = _check_signature(dead_letter, config)
    return dead_letter


def _moved_by_sqs(received: Received, sources: list[str]) -> ReceivedDeadLetter:
    source = received.attributes.get(SOURCE_ATTRIBUTE, "").rpartition(":")[2]
    if not source and len(sources) == 1:
        source = sources[0]
    return ReceivedDeadLetter(
        received=received,
        id=received.message_id,
        function="",
        queue=source,
        at=int(received.attributes.get("SentTimestamp", "0")) / 1000,
        receive_count=received.receive_count,
        body=received.body,
    )


def _sent_by_package(
    received: Received, reason: Mapping[str, Any], body: str
) -> ReceivedDeadLetter:
    """Read the package's envelope.

    Its members may have any type: a stranger may have written it.
    """
    at, attempts, receives = reason.get("at"), reason["attempts"], reason.get("receive_count")
    queue = _string_member(reason, "queue")
    return ReceivedDeadLetter(
        received=received,
        id=_string_member(reason, "id") or received.message_id,
        function=_string_member(reason, "function"),
        queue=queue if re.fullmatch(NAME, queue) else "",
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


def _check_signature(dead_letter: ReceivedDeadLetter, config: Config) -> str:
    """Return ``valid`` if a worker would accept the message, or else the reason why not."""
    try:
        decode(dead_letter, config, queue=dead_letter.queue)
    except MessageError as exc:
        return str(exc)
    return "valid"


def decode(dead_letter: ReceivedDeadLetter, config: Config, *, queue: str) -> Message:
    """Return the message as a worker of its queue would read it. Raise MessageError.

    SQS moves messages within an account and a region, and the package to any queue. That one may
    be beside the place where the message's own queue was before it got another URL.
    """
    here, configured = dead_letter.received.queue.location, config.location_of(dead_letter.queue)
    read = partial(
        Message.decode, dead_letter.received.body,
        queue=queue, keys=config.signing_keys, default_id=dead_letter.message_id,
    )  # fmt: skip
    try:
        return read(location=configured if dead_letter.is_from_package else here or configured)
    except BadSignature:
        if here in {None, configured}:
            raise
        return read(location=here)


# --- filters and groups ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """A filter of dead letters; an empty one lets all of them pass."""

    functions: frozenset[str] = frozenset()
    exceptions: frozenset[str] = frozenset()
    """Types such as ``ValueError``, or with a colon the start of the type and its message."""
    queues: frozenset[str] = frozenset()
    """The own names of the queues that it came from."""
    since: float | None = None
    """The time since which the task failed, in Unix seconds."""
    ids: frozenset[str] = frozenset()
    """Task ids or ids of SQS."""
    argument: str = ""
    """Text in the JSON of the arguments, or in a body that cannot be read."""

    def __bool__(self) -> bool:
        given = self.functions or self.exceptions or self.queues or self.ids or self.argument
        return bool(given) or self.since is not None

    def match(self, dead_letter: ReceivedDeadLetter) -> bool:
        """Return True if a dead letter passes the filter: of each kind, one of those given."""
        return (
            (not self.functions or dead_letter.function in self.functions)
            and (not self.exceptions or self._match_exception(dead_letter))
            and (not self.queues or dead_letter.queue in self.queues)
            and (self.since is None or dead_letter.at >= self.since)
            and (not self.ids or not self.ids.isdisjoint({dead_letter.id, dead_letter.message_id}))
            and (not self.argument or self.argument in dead_letter.arguments)
        )

    def _match_exception(self, dead_letter: ReceivedDeadLetter) -> bool:
        starts = tuple(each for each in self.exceptions if ":" in each)
        is_of_type = dead_letter.exception_type in self.exceptions
        return is_of_type or dead_letter.exception.startswith(starts)


COLUMNS: Final = ("Task id", "Function", "Attempts", "Age", "Exception")


def age(at: float) -> str:
    """Return the time since a moment in Unix seconds, in words."""
    return duration(time.time() - at)


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The dead letters of a sample with the same function, exception type and source queue."""

    function: str
    exception: str
    queue: str
    count: int
    oldest: float
    newest: float

    def filters(self) -> dict[str, str]:
        """Return the filters that let these dead letters pass, by name."""
        return {"function": self.function, "exception": self.exception, "queue": self.queue}

    def cells(self, looked_at: int) -> list[str]:
        """Return the cells of its row below GROUP_COLUMNS, in a sample of this size."""
        return [
            f"{self.count} of {looked_at}", self.function or UNKNOWN, self.exception,
            self.queue or UNKNOWN, age(self.newest), age(self.oldest),
        ]  # fmt: skip


GROUP_COLUMNS: Final = ("Letters", "Function", "Exception", "Queue", "Newest", "Oldest")


def grouped(dead_letters: Iterable[ReceivedDeadLetter]) -> list[Group]:
    """Return the dead letters in groups, the largest first."""
    times: dict[tuple[str, str, str], list[float]] = {}
    for each in dead_letters:
        key = each.function, each.exception_type, each.queue
        times.setdefault(key, []).append(each.at)
    groups = [
        Group(
            function=function, exception=exception, queue=queue,
            count=len(found), oldest=min(found), newest=max(found),
        )
        for (function, exception, queue), found in times.items()
    ]  # fmt: skip
    return sorted(groups, key=lambda each: (-each.count, each.function, each.exception))


def parse_since(value: str) -> float:
    """Return in Unix seconds a time that is an age such as ``2h``, or a date and time in ISO 8601.

    A time without a zone is in the project's time zone. Raise ValueError if it is neither.
    """
    if match := _AGE.fullmatch(value):
        return time.time() - int(match[1]) * _SECONDS[match[2]]
    day = parse_date(value)
    found = datetime(day.year, day.month, day.day) if day else parse_datetime(value)  # noqa: DTZ001
    if found is None:
        raise ValueError(f"{value!r} is neither an age (30m, 2h, 3d) nor a date (2026-11-25T08:00)")
    return (found if is_aware(found) else make_aware(found)).timestamp()
