"""Message: one task as it travels through SQS, and the dead letter around one."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn, TypeGuard

from beanstalk_dispatch.conf.variables import CELERY_QUEUES
from beanstalk_dispatch.exceptions import (
    BadSignature,
    InvalidArgument,
    MalformedMessage,
    MessageError,
)

from .bodies import parse_object, read_members, read_object
from .frozen import make
from .signatures import signer, strip_signature

VERSION: Final = 1
"""The version of the format that this release writes, and the newest that it reads."""

DEAD_LETTER: Final = "dead_letter"
"""The member that makes a JSON object a dead letter; it holds the reason."""

MAX_DELAY_DAYS: Final = 400
"""The number of days ahead for which a task may be scheduled.

Until it is due, its message is sent again every 15 minutes, if no outbox keeps it.
"""

_LOCATION: Final = "location"
"""The member that has the region and account of the queue that a message was signed for."""
_MAX_NAME_LENGTH: Final = 255
NAME_FORM: Final = f"a string of 1 to {_MAX_NAME_LENGTH} printable characters"
"""The values that ``is_name`` accepts, in words for an error."""


def random_id() -> str:
    """Return a random UUID (version 4) in a third of the time that ``uuid.uuid4()`` takes."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One task with its arguments, as it lies on the queue."""

    function: str
    """The task's name in the dispatch table."""
    args: Sequence[Any] = ()
    """The positional arguments, as JSON values."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """The keyword arguments, as JSON values."""
    id: str = field(default_factory=random_id)
    """The task's id. It stays the same through retries and hops."""
    sent_at: float | None = None
    """The time when the task was scheduled, in Unix seconds."""
    attempt: int = 1
    """The number of the attempt: 1 for the first, one more for each retry."""
    first_attempt: int = 1
    """The attempt from which retries are counted. After a redrive that resets them it is above 1.

    ``attempt`` itself never falls, because the lease takes a lower one for a duplicate.
    """
    not_before: float | None = None
    """The earliest time of the task, in Unix seconds, for a delay longer than SQS allows."""
    not_after: float | None = None
    """The moment after which the task does not run any more, in Unix seconds."""
    unique: Mapping[str, Any] = field(default_factory=dict)
    """The ``key`` of a unique call, the seconds ``for`` which it is held, and ``until`` its end."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The limits that a scheduled SafeTask instance sets itself."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The trace context."""
    typed: Sequence[int | str] = ()
    """The arguments that the sender has converted: positions in ``args``, names in ``kwargs``."""
    cursor: Any = None
    """The position at which ``resume`` begins, as a JSON value; None for the start."""
    leg: int = 1
    """The number of the leg: one more for each copy that begins at another position."""
    progress: Sequence[int | None] = ()
    """The number of items that earlier legs have finished, and of all items if that is known."""

    @property
    def counted_attempt(self) -> int:
        """Return the attempt as the limit of retries counts it."""
        return max(self.attempt - self.first_attempt + 1, 1)

    def __repr__(self) -> str:
        """Return a description without arguments and headers, which may contain personal data."""
        return f"<Message id={self.id} function={self.function} attempt={self.attempt}>"

    def encode(
        self,
        *,
        queue: str,
        keys: Sequence[str] = (),
        legacy: bool = False,
        is_copy: bool = False,
        location: str | None = None,
    ) -> str:
        """Return the body to send to the queue named ``queue``: ``write``, then ``seal``."""
        text = self.write(legacy=legacy, is_copy=is_copy)
        return self.seal(text, queue=queue, keys=keys, legacy=legacy, location=location)

    def write(self, *, legacy: bool = False, is_copy: bool = False) -> str:
        """Return the message as JSON in ASCII, without its headers, which ``seal`` adds.

        ``legacy`` writes the format of beanstalk-dispatch 0.1, in which a message has the id that
        SQS gives it. So only a copy (``is_copy``) has its id in it, which 0.1 does not read. Raise
        InvalidArgument if JSON would change an argument.
        """
        content: dict[str, Any] = {} if legacy else {"v": VERSION}
        if is_copy or not legacy:
            content["id"] = self.id
        content["function"] = self.function
        content["args"], content["kwargs"] = list(self.args), dict(self.kwargs)
        if self.sent_at is not None and not legacy:
            content["sent_at"] = self.sent_at
        for name, default in _UNSET.items():
            if (value := getattr(self, name)) != default:
                content[name] = value
        if self.typed:
            content["typed"] = list(self.typed)
        try:
            text = _json_encode(content)
            is_unchanged = bool(_json_decode(text)[0] == content)
        except Exception:  # an argument's own methods may raise anything
            is_unchanged = False
        if not is_unchanged:
            _raise_invalid_argument(content)
        return text

    def seal(
        self,
        text: str,
        *,
        queue: str,
        keys: Sequence[str] = (),
        legacy: bool = False,
        location: str | None = None,
    ) -> str:
        """Return the body for the queue named ``queue``; signed if there are ``keys``.

        ``text`` is what ``write`` returned. Only the headers are written here, so those that an
        observer adds need no second encoding of the arguments. ``location`` is that of the queue,
        if it is known: see ``QueueAddress.location``. Raise InvalidArgument if JSON would change
        the headers.
        """
        if legacy:
            return base64.b64encode(text.encode("ascii")).decode("ascii")
        if self.headers:
            text = f'{text[:-1]},"headers":{_headers_json(self.function, self.headers)}}}'
        if not keys:
            return text
        if location:
            text = f'{text[:-1]},"{_LOCATION}":"{location}"}}'
        return signer(queue, tuple(keys)).sign(text)

    @classmethod
    def decode(
        cls,
        body: bytes | str,
        *,
        queue: str,
        keys: Sequence[str] = (),
        default_id: str | None = None,
        location: str | None = None,
    ) -> Message:
        """Return the message in a body that was received from the queue named ``queue``.

        With ``keys``, the signature is verified before its object is parsed, and a message
        that was signed for a queue of this name elsewhere than at ``location`` is refused.
        A message in the format of 0.1 has no id and gets ``default_id``. A dead letter is
        read as the message inside it, with the next attempt.

        Raise BadSignature if the signature or the location is wrong, MalformedMessage if
        the body is not a message.
        """
        content = read_members(body, queue=queue, keys=keys)
        attempts = 0
        while DEAD_LETTER in content:
            inner, count, inner_id = _dead_letter_parts(content)
            attempts, default_id = max(attempts, count), inner_id or default_id
            content = read_members(inner, queue=queue, keys=keys)
        if keys and location:
            _check_location(content, location)
        message = _to_message(content, default_id)
        return replace(message, attempt=attempts + 1) if attempts else message


_UNSET: Final[Mapping[str, Any]] = {
    "attempt": 1, "first_attempt": 1, "not_before": None, "not_after": None,
    "unique": {}, "options": {}, "cursor": None, "leg": 1,
    "progress": (),
}  # fmt: skip
"""The members that are written only if they have another value."""


def wrap(
    body: bytes | str,
    reason: Mapping[str, Any],
    *,
    queue: str,
    keys: Sequence[str] = (),
) -> str:
    """Return a dead letter: ``body`` as it was received from ``queue``, with the ``reason``.

    ``reason`` has at least the members ``attempts`` and ``id``. If ``body`` is a dead letter
    with a good signature, the body inside it is wrapped instead. A dead letter with a bad
    signature is wrapped whole: our signature around the body inside it would let a refused
    message run. When a dead letter is moved back to ``queue``, ``Message.decode`` reads the
    message inside it.
    """
    inner = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    with suppress(MessageError):
        content = read_object(body, queue=queue, keys=keys)
        inner, *_ = _dead_letter_parts(content)
    dead_letter = _json_encode({"v": VERSION, DEAD_LETTER: dict(reason), "body": inner})
    return signer(queue, tuple(keys)).sign(dead_letter) if keys else dead_letter


def read_dead_letter(body: str) -> tuple[Mapping[str, Any], str] | None:
    """Return the reason in a dead letter and the body inside it.

    Return None if ``body`` is another message. No signature is verified, so this is for a
    person to read.
    """
    try:
        content = parse_object(strip_signature(body.strip()))
        inner, *_ = _dead_letter_parts(content)
    except MalformedMessage:
        return None
    return content[DEAD_LETTER], inner


# --- writing ---------------------------------------------------------------------------------

_json_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_json_decode = json.JSONDecoder().raw_decode


def _headers_json(function: str, headers: Mapping[str, str]) -> str:
    try:
        text = _json_encode(headers)
        is_unchanged = bool(_json_decode(text)[0] == headers)
    except Exception:  # an observer may add anything
        is_unchanged = False
    if not is_unchanged:
        raise InvalidArgument(f"{function}: the message cannot be written as JSON")
    return text


def _raise_invalid_argument(content: Mapping[str, Any]) -> NoReturn:
    """Raise InvalidArgument for the first argument that JSON would change."""
    # It imports Django's models, and is needed for an error only.
    from .arguments import json_problem  # noqa: PLC0415

    function = content["function"]
    for name in ("args", "kwargs"):
        if problem := json_problem(name, content[name]):
            raise InvalidArgument(f"{function}: {problem}")
    raise InvalidArgument(f"{function}: the message cannot be written as JSON")


# --- reading ---------------------------------------------------------------------------------


def _check_location(content: Mapping[str, Any], location: str) -> None:
    """Raise BadSignature if a message was signed for another region or account.

    A message without a location is accepted from any.
    """
    signed_for = content.get(_LOCATION, location)
    if signed_for != location:
        raise BadSignature(f"signed for a queue in {signed_for!r:.80}, received in {location!r}")


def _dead_letter_parts(content: Mapping[str, Any]) -> tuple[str, int, str | None]:
    """Return the body, attempts and id in a dead letter."""
    reason, body = content.get(DEAD_LETTER), content.get("body")
    if isinstance(reason, dict) and isinstance(body, str):
        attempts, task_id = reason.get("attempts"), reason.get("id")
        if isinstance(attempts, int) and _is_count(attempts):
            is_id = isinstance(task_id, str) and is_name(task_id)
            return body, attempts, task_id if is_id else None
    raise MalformedMessage(f"{DEAD_LETTER} is not a dead letter")


def is_name(value: str) -> bool:
    """Return True if ``value`` fits into a log line: short, and without line breaks."""
    return 0 < len(value) <= _MAX_NAME_LENGTH and value.isprintable()


def is_time(value: object) -> TypeGuard[float]:
    """Return True if a value may be a moment in Unix seconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40


def _is_count(value: int) -> bool:
    return not isinstance(value, bool) and 1 <= value < 2**31


def _is_headers(value: dict[str, Any]) -> bool:
    return all(isinstance(item, str) for item in value.values())


def _is_unique(value: dict[str, Any]) -> bool:
    key, seconds = value.get("key"), value.get("for")
    return isinstance(key, str) and is_name(key) and is_time(seconds) and seconds > 0


def _is_typed(value: list[Any]) -> bool:
    return all(type(each) is str or (type(each) is int and each >= 0) for each in value)


def _is_progress(value: list[Any]) -> bool:
    return len(value) == 2 and type(value[0]) is int and type(value[1]) in {int, type(None)}


# Member → its types, a further condition, and the description of both for an error.
_MEMBERS: Final[Mapping[str, tuple[Any, Callable[[Any], bool] | None, str]]] = {
    "function": (str, is_name, NAME_FORM),
    "args": (list, None, "a list"),
    "kwargs": (dict, None, "an object"),
    "id": (str, is_name, NAME_FORM),
    "sent_at": ((int, float), is_time, "Unix seconds"),
    "attempt": (int, _is_count, "a count from 1"),
    "first_attempt": (int, _is_count, "a count from 1"),
    "not_before": ((int, float), is_time, "Unix seconds"),
    "not_after": ((int, float), is_time, "Unix seconds"),
    "unique": (dict, _is_unique, "an object with a key and a time"),
    "options": (dict, None, "an object"),
    "headers": (dict, _is_headers, "an object of strings"),
    "typed": (list, _is_typed, "a list of positions and names"),
    "cursor": (object, None, "a value"),
    "leg": (int, _is_count, "a count from 1"),
    "progress": (list, _is_progress, "a list of two counts"),
}


_REQUIRED: Final = ("function", "args", "kwargs")

_OTHER_SENDERS: Final[Mapping[str, str]] = {
    "content-type": f"a message of Celery; to run it, name its queue in {CELERY_QUEUES.variable}",
    "TopicArn": "an envelope of SNS; turn on raw message delivery of its subscription",
    "detail-type": (
        "an event of EventBridge; set the Input of its target to "
        '{"function": "NAME", "args": [], "kwargs": {}}'
    ),
}
"""A member that only messages of another library or service have → how their tasks can run."""


def _to_message(content: dict[str, Any], default_id: str | None) -> Message:
    version = content.get("v", VERSION)
    if type(version) is not int or version < 1:
        raise MalformedMessage("v is not a version number")
    if version > VERSION:
        raise MalformedMessage(f"message version {version} is newer than {VERSION}; upgrade")
    for name in _REQUIRED:
        if name not in content:
            _raise_missing_member(content, name)
    members: dict[str, Any] = {} if default_id is None else {"id": default_id}
    for name, value in content.items():
        if name in _MEMBERS and (value is not None or name in _REQUIRED):
            types, is_valid, description = _MEMBERS[name]
            if not isinstance(value, types) or (is_valid and not is_valid(value)):
                raise MalformedMessage(f"{name} is not {description}")
            members[name] = value
    return make(Message, members)


def _raise_missing_member(content: Mapping[str, Any], name: str) -> NoReturn:
    for member, advice in _OTHER_SENDERS.items():
        if member in content:
            raise MalformedMessage(advice)
    raise MalformedMessage(f"Please provide a {name} argument")


def now() -> float:
    """Return the wall clock in Unix seconds, to the millisecond. It is never ahead of the clock."""
    return int(time.time() * 1000) / 1000
