"""Message: what travels through SQS, and how it is encoded, signed, verified and decoded."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from django.core.signing import BadSignature as DjangoBadSignature
from django.core.signing import Signer

from .exceptions import BadSignature, InvalidArgument, MalformedMessage

VERSION: Final = 1

DEAD_LETTER: Final = "dead_letter"
"""The member by which a dead letter is known."""

_SALT: Final = "beanstalk_dispatch.message."
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}")  # HMAC-SHA256 as django.core.signing writes it
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}")  # two ways to match a space would be quadratic
_MAX_NAME_LENGTH: Final = 255
NAME_FORM: Final = f"a text of 1 to {_MAX_NAME_LENGTH} printable characters"


@dataclass(slots=True, kw_only=True)  # frozen, it would take thrice as long to make
class Message:
    """One task: which function, with what. Copied (dataclasses.replace), never changed.

    ``id`` stays the same through retries and hops; ``attempt`` counts from 1. ``sent_at`` and
    ``not_before`` are Unix times in seconds. ``options`` are a SafeTask's own limits
    (see ``SafeTask.options``); ``headers`` carry trace context.
    """

    function: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    sent_at: float | None = None
    attempt: int = 1
    not_before: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Without arguments and headers: they may hold what must not be logged."""
        return f"<Message id={self.id} function={self.function} attempt={self.attempt}>"

    def encode(self, *, queue: str, keys: Sequence[str] = (), legacy: bool = False) -> str:
        """The body to send to the queue named ``queue``: ASCII, signed if there are ``keys``.

        ``legacy`` writes what beanstalk-dispatch 0.1 reads. Raises InvalidArgument if an
        argument does not come back from JSON equal to what went in.
        """
        content: dict[str, Any] = {
            "function": self.function,
            "args": list(self.args),
            "kwargs": dict(self.kwargs),
        }
        if not legacy:
            content = {"v": VERSION, "id": self.id} | content
            if self.sent_at is not None:
                content["sent_at"] = self.sent_at
        if self.attempt != 1:
            content["attempt"] = self.attempt
        if self.not_before is not None:
            content["not_before"] = self.not_before
        if self.options:
            content["options"] = self.options
        if self.headers and not legacy:
            content["headers"] = self.headers
        body = _dump(content)
        if legacy:
            return base64.b64encode(body.encode("ascii")).decode("ascii")
        return _signer(queue, keys).sign(body) if keys else body

    @classmethod
    def decode(
        cls,
        body: bytes | str,
        *,
        queue: str,
        keys: Sequence[str] = (),
        default_id: str | None = None,
    ) -> Message:
        """Read a body received from the queue named ``queue``.

        With ``keys``, the signature is verified before anything is parsed. A message of 0.1,
        which carries no id, gets ``default_id``. Raises BadSignature or MalformedMessage.
        """
        content = _load(_opened(body, queue=queue, keys=keys))
        if DEAD_LETTER not in content:
            return _from_content(content, default_id)
        inner, attempts, task_id = _unwrapped(content)
        message = _from_content(_load(_opened(inner, queue=queue, keys=keys)), task_id)
        message.attempt = attempts + 1
        return message


def wrap(
    body: bytes | str,
    reason: Mapping[str, Any],
    *,
    queue: str,
    keys: Sequence[str] = (),
) -> str:
    """A dead letter: ``body`` as it was received from ``queue``, and why it did not run.

    Put back on ``queue``, ``decode`` reads it as the message in it. ``reason`` has the members
    ``attempts`` and ``id`` at least. A dead letter is not wrapped a second time.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    with suppress(MalformedMessage, ValueError):
        text, *_ = _unwrapped(_load(_without_signature(text.strip())))
    wrapped = _encode({"v": VERSION, DEAD_LETTER: dict(reason), "body": text})
    return _signer(queue, keys).sign(wrapped) if keys else wrapped


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().raw_decode


def _dump(content: dict[str, Any]) -> str:
    try:
        body = _encode(content)
        survived = bool(_decode(body)[0] == content)
    except Exception:  # an argument's own methods may raise anything
        survived = False
    if not survived:
        _raise_invalid_argument(content)
    return body


def _raise_invalid_argument(content: Mapping[str, Any]) -> NoReturn:
    """Find what of the arguments does not survive the round trip, and say so."""
    function = content["function"]
    for name, values in (("args", content["args"]), ("kwargs", content["kwargs"])):
        try:
            fault = _fault(name, values)
        except RecursionError:
            fault = f"{name}: nested too deeply, or contains itself"
        except Exception as exc:
            fault = f"{name}: cannot be read: {type(exc).__name__}"
        if fault:
            raise InvalidArgument(f"{function}: {fault}")
    raise InvalidArgument(f"{function}: the message cannot be written as JSON")


def _fault(place: str, value: object) -> str | None:
    """The first place in ``value`` that JSON cannot carry, with its type."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return (
                    f"{place}: key {_shown(key)} is {type(key).__name__}, JSON has text keys only"
                )
        items = [(f"{place}[{_shown(key)}]", item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{place}[{index}]", item) for index, item in enumerate(value)]
    elif isinstance(value, tuple):
        return f"{place}: {type(value).__name__} would come back as a list; pass a list"
    else:
        kind = type(value).__name__
        return None if _survives(value) else f"{place}: {kind} would not come back from JSON as is"
    return next(filter(None, (_fault(*item) for item in items)), None)


def _shown(key: object) -> str:
    try:
        return repr(key)[:100]
    except Exception:  # an int of too many digits, or a __repr__ that fails
        return "?"


def _survives(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except Exception:
        return False


def _opened(body: bytes | str, *, queue: str, keys: Sequence[str]) -> str:
    """The JSON in a body, its signature verified and taken off."""
    text = _text(body)
    text = _verify(text, queue=queue, keys=keys) if keys else _without_signature(text)
    return text if text.startswith("{") else _from_base64(text)


def _without_signature(text: str) -> str:
    """Without keys nobody can tell who signed."""
    return text.rpartition(":")[0] if not text.endswith("}") and _is_signed(text) else text


def _unwrapped(content: Mapping[str, Any]) -> tuple[str, int, str | None]:
    """Body, attempts and id in a dead letter."""
    reason, body = content.get(DEAD_LETTER), content.get("body")
    if isinstance(reason, dict) and isinstance(body, str):
        attempts, task_id = reason.get("attempts"), reason.get("id")
        if isinstance(attempts, int) and _is_count(attempts):
            is_id = isinstance(task_id, str) and is_name(task_id)
            return body, attempts, task_id if is_id else None
    raise MalformedMessage(f"{DEAD_LETTER} is not a dead letter")


def _signer(queue: str, keys: Sequence[str]) -> Signer:
    return Signer(key=keys[0], salt=_SALT + queue, fallback_keys=list(keys[1:]))


def _is_signed(text: str) -> bool:
    _, colon, signature = text[-44:].rpartition(":")
    return bool(colon and _SIGNATURE.fullmatch(signature))


def _verify(text: str, *, queue: str, keys: Sequence[str]) -> str:
    try:
        return _signer(queue, keys).unsign(text)
    except (DjangoBadSignature, UnicodeEncodeError):  # half a surrogate pair has no bytes
        signed = _is_signed(text)
        reason = f"no signing key matches for queue {queue!r}" if signed else "not signed"
        raise BadSignature(reason) from None


def _text(body: bytes | str) -> str:
    if isinstance(body, bytes):
        try:
            body = body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise MalformedMessage(f"not UTF-8 at byte {exc.start}") from None
    text = body.strip()
    if not text:
        raise MalformedMessage("empty body")
    return text


def _from_base64(text: str) -> str:
    """The JSON inside a body of 0.1; anything else is passed on for the JSON parser to refuse."""
    if not _BASE64.fullmatch(text):
        return text
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode("utf-8").strip()
    except (binascii.Error, UnicodeDecodeError):
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _load(text: str) -> dict[str, Any]:
    try:
        content, end = _decoder.raw_decode(text)
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except json.JSONDecodeError as exc:
        raise MalformedMessage(f"not JSON: {exc.msg} at character {exc.pos}") from None
    except RecursionError:
        raise MalformedMessage("nested too deeply") from None
    except ValueError as exc:
        raise MalformedMessage(str(exc).partition(";")[0]) from None
    if not isinstance(content, dict):
        raise MalformedMessage(f"{type(content).__name__} given; a JSON object is accepted")
    return content


def is_name(value: str) -> bool:
    """Fit for a log line: short, and no line break in it."""
    return 0 < len(value) <= _MAX_NAME_LENGTH and value.isprintable()


def _is_time(value: float) -> bool:
    return not isinstance(value, bool) and 0 <= value < 2**40


def _is_count(value: int) -> bool:
    return not isinstance(value, bool) and 1 <= value < 2**31


def _is_headers(value: dict[str, Any]) -> bool:
    return all(isinstance(item, str) for item in value.values())


# Optional member → its types, what else is asked of it, and that in words.
_OPTIONAL: Final[Mapping[str, tuple[Any, Callable[[Any], bool] | None, str]]] = {
    "id": (str, is_name, NAME_FORM),
    "sent_at": ((int, float), _is_time, "Unix seconds"),
    "attempt": (int, _is_count, "a count from 1"),
    "not_before": ((int, float), _is_time, "Unix seconds"),
    "options": (dict, None, "an object"),
    "headers": (dict, _is_headers, "an object of texts"),
}


def _from_content(content: dict[str, Any], default_id: str | None) -> Message:
    _check_version(content.get("v", VERSION))
    try:
        function, args, kwargs = content["function"], content["args"], content["kwargs"]
    except KeyError as exc:
        raise MalformedMessage(f"Please provide a {exc.args[0]} argument") from None
    if not (isinstance(function, str) and is_name(function)):
        raise MalformedMessage(f"function is not {NAME_FORM}")
    if not isinstance(args, list):
        raise MalformedMessage("args is not a list")
    if not isinstance(kwargs, dict):
        raise MalformedMessage("kwargs is not an object")
    optional: dict[str, Any] = {} if default_id is None else {"id": default_id}
    for name, value in content.items():
        if name in _OPTIONAL and value is not None:
            types, is_valid, accepted = _OPTIONAL[name]
            if not isinstance(value, types) or (is_valid and not is_valid(value)):
                raise MalformedMessage(f"{name} is not {accepted}")
            optional[name] = value
    return Message(function=function, args=args, kwargs=kwargs, **optional)


def _check_version(version: object) -> None:
    if not (isinstance(version, int) and _is_count(version)):
        raise MalformedMessage("v is not a version number")
    if version > VERSION:
        raise MalformedMessage(f"message version {version} is newer than {VERSION}; upgrade")


def now() -> float:
    """The wall clock in Unix seconds, to the millisecond."""
    return round(time.time(), 3)
