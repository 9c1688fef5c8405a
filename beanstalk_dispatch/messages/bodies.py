"""The JSON object in a body, in the format of this version, of 0.1, or of another library."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from beanstalk_dispatch.exceptions import MalformedMessage

from .signatures import strip_signature, verified

# Whitespace is matched in one place only: with a second, a long body would take quadratic time.
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}")

Translator = Callable[[bytes | str, str], dict[str, Any] | None]
"""A function that gets a body and its queue's name, and returns the members of our message.

It returns None for a body that is not of its library, and raises MalformedMessage.
"""

_translators: Final[list[Translator]] = []


def register_translator(translator: Translator) -> None:
    """Have the messages of another library read. A contrib room calls it when it is imported."""
    _translators.append(translator)


def read_members(body: bytes | str, *, queue: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return the members of the message in a body, as ``read_object`` does.

    A contrib room may translate the messages of another library, which nobody has signed.
    """
    for translate in _translators:
        if (members := translate(body, queue)) is not None:
            return members
    return read_object(body, queue=queue, keys=keys)


def read_object(body: bytes | str, *, queue: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return the JSON object in a body. The signature is verified first if there are ``keys``.

    Raise BadSignature or MalformedMessage.
    """
    if isinstance(body, bytes):
        try:
            body = body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise MalformedMessage(f"not UTF-8 at byte {exc.start}") from None
    if not (content := body.strip()):
        raise MalformedMessage("empty body")
    content = verified(content, queue=queue, keys=keys) if keys else strip_signature(content)
    return parse_object(content if content.startswith("{") else _decode_base64(content))


def read_unsigned(body: bytes | str) -> dict[str, Any]:
    """Return the JSON object in a body, whose signature is not verified if it has one."""
    return read_object(body, queue="", keys=())


def _decode_base64(content: str) -> str:
    """Return the JSON inside a body of 0.1. Return any other string as it is."""
    if not _BASE64.fullmatch(content):
        return content
    try:
        return base64.b64decode("".join(content.split()), validate=True).decode("utf-8").strip()
    except (binascii.Error, UnicodeDecodeError):
        return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_finite_float)


def parse_json(content: str) -> Any:
    """Return a value of JSON. Raise MalformedMessage for what JSON cannot bring back."""
    try:
        value, end = _decoder.raw_decode(content)
        if end != len(content):
            raise json.JSONDecodeError("Extra data", content, end)
    except json.JSONDecodeError as exc:
        raise MalformedMessage(f"not JSON: {exc.msg} at character {exc.pos}") from None
    except RecursionError:
        raise MalformedMessage("nested too deeply") from None
    except ValueError as exc:
        raise MalformedMessage(str(exc).partition(";")[0]) from None
    return value


def parse_object(content: str) -> dict[str, Any]:
    """Return the JSON object in a string. Raise MalformedMessage for anything else."""
    value = parse_json(content)
    if not isinstance(value, dict):
        raise MalformedMessage(f"expected a JSON object, got {type(value).__name__}")
    return value
