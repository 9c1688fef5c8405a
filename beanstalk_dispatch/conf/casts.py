"""Casts: functions that turn a variable's string, or the value of a Django setting, into a value.

Each is strict. It returns the value, or raises an InvalidValue that shows the wrong item and names
the accepted form.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .queue_address import QueueAddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# A message can be in flight for 12 hours, so no task may take longer:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html
MAX_DURATION: Final = "12h"

SEPARATORS: Final = r"[\s,]+"
_DURATION: Final = r"(\d+(?:\.\d+)?)(s|m|h|d)?"
_SECONDS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE: Final = r"([0-9]{1,15})([KMG]?)(?:I?B)?"
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_DIGITS: Final = r"[0-9]{1,9}"
_QUEUE_PATH: Final = r"/[0-9]{12}/[\w-]+(\.fifo)?$"
_DOTTED_PATH: Final = r"[^\W\d]\w*(\.[^\W\d]\w*)+"
_COLON_PAIR: Final = r"(?!arn:|https?:)([\w-]+):([^=:]+)"
_MODULE: Final = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_SWALLOWED_PROPERTY: Final = r"((AWS|BEANSTALK|DJANGO|SENTRY)_[A-Z_]+)="
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_NOT_A_PAIR = (
    "is not a pair; write name=value without whitespace around '=', "
    "and whitespace or commas between pairs"
)
_NOT_A_TABLE_ENTRY = (
    "is not name=package.module.attribute; write dots between the parts of the path, "
    "and whitespace or commas between pairs"
)


class InvalidValue(ValueError):
    """The refusal of a value by a cast. ``str()`` shows the wrong item, if any, and the reason."""

    reason: str
    """The reason, with the accepted form. It never shows the value, which may be a secret."""

    def __init__(self, reason: str, *wrong: object) -> None:
        super().__init__(" ".join([*(repr(item) for item in wrong), reason]))
        self.reason = reason


def string(value: object) -> str:
    """Return a string. Refuse bytes that are not UTF-8: such a key could not sign."""
    if not isinstance(value, str):
        raise InvalidValue(f"expected a string, not {type(value).__name__}")
    if not _is_unicode(value):
        raise InvalidValue("is not valid Unicode", value)
    return value


def _is_unicode(value: str) -> bool:
    """Return True for a string without surrogates, which os.environ has for bytes not in UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_shell_syntax(value: str) -> None:
    """Raise InvalidValue for the quotes or the backslash of a shell that are not meant.

    Docker passes both on as a part of the value; no value of a variable begins with a quote.
    On the Python platform systemd removes them, and may read the next property as a part of this
    one.
    """
    if match := re.search(_SWALLOWED_PROPERTY, value):
        raise InvalidValue(
            f"contains the next property, {match[1]}; remove the backslash at the end of "
            "the value, or the quote that is not closed",
            value[: match.end()].rsplit(maxsplit=1)[-1],
        )
    if len(value) > 1 and value[0] in {"'", '"'} and value[0] == value[-1]:
        raise InvalidValue("is in quotes, which are a part of the value here; remove them", value)
    if value.endswith("\\"):
        raise InvalidValue("ends with a backslash; write the value in one line", value)


def boolean(value: object) -> bool:
    """Return a boolean: True for ``True``, ``yes``, ``on`` and ``1``, in any case.

    Return False for ``False``, ``no``, ``off`` and ``0``.
    """
    if isinstance(value, bool):
        return value
    try:
        return _BOOLEANS[str(value).lower()]
    except KeyError:
        raise InvalidValue("is not a boolean; write True or False", value) from None


def duration(value: object) -> timedelta:
    """Return a duration.

    ``90`` and ``90s`` are seconds; ``5m``, ``1h``, ``1d`` have other units.
    """
    return _parse_duration(value, above="0s", longest=MAX_DURATION)


def age(value: object) -> timedelta:
    """Return the longest age of a message.

    A message may be delayed by 15 minutes and kept for 14 days.
    """
    return _parse_duration(value, above="15m", longest="14d")


def time_to_live(value: object) -> timedelta:
    """Return the time for which a result is kept."""
    return _parse_duration(value, above="0s", longest="400d")


def _parse_duration(value: object, *, above: str, longest: str) -> timedelta:
    """Return a length within these bounds, which are durations themselves."""
    try:
        length = value if isinstance(value, timedelta) else _length_of(str(value))
    except OverflowError:
        raise InvalidValue(f"is too long; at most {longest}", value) from None
    if not _length_of(above) < length <= _length_of(longest):
        unit = "; a number alone means seconds" if str(value).isdecimal() else ""
        raise InvalidValue(f"is out of range; more than {above} and at most {longest}{unit}", value)
    return length


def _length_of(string: str) -> timedelta:
    match = re.fullmatch(_DURATION, string)
    if match is None:
        raise InvalidValue("is not a duration; write 90, 90s, 5m or 1h", string)
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])


def integer(low: int, high: int) -> Callable[[object], int]:
    """Return a cast that accepts the integers within a range."""

    def cast(value: object) -> int:
        found = str(value)
        if not re.fullmatch(_DIGITS, found) or not low <= int(found) <= high:
            raise InvalidValue(f"is not an integer from {low} to {high}", found)
        return int(found)

    return cast


def size(value: object) -> int:
    """Return a number of bytes from ``300M`` or ``1G``. A number alone means bytes."""
    match = re.fullmatch(_SIZE, str(value).upper())
    found = int(match[1]) * _UNITS[match[2]] if match else 0
    if not found:
        raise InvalidValue("is not a size; write 300M or 1G", value)
    return found


def rate(value: object) -> float:
    """Return a share: a number from 0 to 1."""
    share = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            share = float(value)
    if not 0 <= share <= 1:
        raise InvalidValue("is not a rate; write a number from 0 to 1", value)
    return share


def strings(value: object) -> tuple[str, ...]:
    """Return a list of strings: items separated by whitespace or commas, or a JSON list."""
    items = value
    if isinstance(value, str):
        is_json = value.startswith("[")
        items = _load_json(value) if is_json else filter(None, re.split(SEPARATORS, value))
    if not isinstance(items, Iterable) or isinstance(items, Mapping):
        raise InvalidValue(f"expected a list of strings, not {type(items).__name__}")
    found = tuple(items)
    for item in found:
        if not isinstance(item, str) or not item or not _is_unicode(item):
            raise InvalidValue("is not accepted; expected a list of strings", item)
    return found


def strings_or_off(value: object) -> tuple[str, ...]:
    """Return the items of a list, none for the word ``off``, in capitals or not."""
    if isinstance(value, str) and value.strip().lower() == "off":
        return ()
    return strings(value)


def pairs(value: object) -> Mapping[str, str]:
    """Return a mapping: ``name=value`` separated by whitespace or commas, or a JSON object."""
    found: dict[str, str] = {}
    for name, item in mapping(value).items():
        if not (isinstance(name, str) and isinstance(item, str) and name and item):
            raise InvalidValue("is not accepted; expected a mapping of strings", {name: item})
        if not _is_unicode(name + item):
            raise InvalidValue("is not valid Unicode", {name: item})
        found[name] = item
    return MappingProxyType(found)


def mapping(value: object) -> Mapping[str, object]:
    """Return the pairs, the JSON object or the mapping as they are written."""
    found = value
    if isinstance(value, str):
        found = _load_json(value) if value.startswith("{") else _split_pairs(value)
    if not isinstance(found, Mapping):
        raise InvalidValue(f"expected a mapping of strings, not {type(found).__name__}")
    return found


def _split_pairs(value: str) -> dict[str, str]:
    found: dict[str, str] = {}
    before = ""
    for item in filter(None, re.split(SEPARATORS, value)):
        name, _, target = item.partition("=")
        if ";" in item:
            raise InvalidValue(f"{_NOT_A_PAIR}; write a space in place of ';'", item)
        if not (name and target):
            raise InvalidValue(f"{_NOT_A_PAIR}{_likely_pair(item, before)}", item)
        if name in found:
            raise InvalidValue("is given twice", name)
        found[name] = target
        before = item
    return found


def _likely_pair(item: str, before: str) -> str:
    """Return advice for ``name:value``, a path without its name, and the rest of a name."""
    if match := re.fullmatch(_COLON_PAIR, item):
        return f"; write {match[1]}={match[2]}"
    if re.fullmatch(_DOTTED_PATH, item):
        return f"; write {item.rpartition('.')[2]}={item}"
    return f"; if it belongs to {before!r}: no name has whitespace in it" if before else ""


def _load_json(value: str) -> object:
    try:
        return json.loads(value, object_pairs_hook=_reject_repeated_names)
    except json.JSONDecodeError as exc:
        form = "items" if value.startswith("[") else "name=value pairs"
        raise InvalidValue(
            f"starts like JSON but is not JSON (character {exc.pos}: {exc.msg}); "
            f"write JSON, or {form} separated by whitespace"
        ) from None
    except RecursionError:
        raise InvalidValue("the JSON is nested too deeply") from None


def _reject_repeated_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InvalidValue("is given twice", min(repeated))
    return dict(pairs)


def table(value: object) -> Mapping[str, str]:
    """Return a mapping of pairs ``name=package.module.attribute``.

    The paths of a dict in Django's settings are left to ``manage.py check``.
    """
    found = pairs(value)
    if isinstance(value, str):
        for name, target in found.items():
            if not re.fullmatch(_DOTTED_PATH, target):
                remedy = "; write a dot in place of ':'" if ":" in target else ""
                raise InvalidValue(f"{_NOT_A_TABLE_ENTRY}{remedy}", f"{name}={target}")
    return found


def queues(value: object) -> Mapping[str, QueueAddress]:
    """Return a mapping of pairs ``alias=queue``; a queue is given by its name, URL or ARN."""
    from .queue_address import QueueAddress  # noqa: PLC0415 - few processes need it

    addresses = {alias: QueueAddress.parse(queue) for alias, queue in pairs(value).items()}
    return MappingProxyType(addresses)


def dotted_path(value: object) -> str:
    """Return a path like ``package.module.attribute``. It is not imported here."""
    found = string(value)
    if not re.fullmatch(_DOTTED_PATH, found):
        raise InvalidValue("is not a dotted path; write package.module.Class", found)
    return found


def dotted_paths(value: object) -> tuple[str, ...]:
    """Return a list of modules, or of dotted paths. Nothing is imported here."""
    found = strings(value)
    for item in found:
        if not re.fullmatch(_MODULE, item):
            remedy = "write shop.tasks or shop.tasks.send_welcome"
            raise InvalidValue(f"is not a module or a dotted path; {remedy}", item)
    return found


def region(value: object) -> str:
    """Return the name of an AWS region."""
    from .queue_address import REGION  # noqa: PLC0415 - few processes need it

    name = string(value)
    if not re.fullmatch(REGION, name):
        raise InvalidValue("is not an AWS region; write one like eu-west-1", name)
    return name


def url(value: object) -> str:
    """Return an http or https URL that a client can be made for, without a slash at its end."""
    from .queue_address import endpoint_host  # noqa: PLC0415 - few processes need it

    address = string(value)
    if "@" in address:
        raise InvalidValue("a user name or password in the URL is not accepted")
    if re.search(_QUEUE_PATH, address):
        raise InvalidValue("is a queue's URL, which is not an endpoint; remove its path", address)
    if endpoint_host(address) is None:
        host = "; a host's name has no underscore: rename that service" if "_" in address else ""
        raise InvalidValue(f"is not a URL; write https://host or http://host:port{host}", address)
    return address.rstrip("/")


def stdout_or_agent(value: object) -> str:
    """Return ``stdout``, or the address of an agent that listens on UDP, as a URL.

    It is an IP address, so that no task waits for a name server.
    """
    destination = string(value)
    if destination == "stdout":
        return destination
    match = re.fullmatch(r"udp://\[?([0-9a-f.:]+?)\]?:(\d{1,5})", destination)
    with suppress(ValueError):
        if match and ipaddress.ip_address(match[1]) and int(match[2]) < 2**16:
            return destination
    raise InvalidValue("is not a destination; write stdout or udp://127.0.0.1:25888", destination)


def path(value: object) -> Path:
    """Return the path of a file. The file need not exist."""
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise InvalidValue(f"expected a path, not {type(value).__name__}")
    return Path(value)


def absolute_path(*words: str) -> Callable[[object], str]:
    """Return a cast that accepts the absolute path of a file, which need not exist, and words."""

    def cast(value: object) -> str:
        found = path(value)
        if str(found) not in words and not found.is_absolute():
            forms = " or ".join(["one", *words])
            raise InvalidValue(f"is not an absolute path; write {forms}", str(found))
        return str(found)

    return cast


def networks(value: object) -> tuple[Network, ...]:
    """Return a list of IP addresses and networks."""
    return tuple(_parse_network(item) for item in strings(value))


def _parse_network(item: str) -> Network:
    try:
        return ipaddress.ip_network(item)
    except ValueError:
        reason = "is not an IP address or network; write one like 10.0.0.1 or 10.0.0.0/8"
        raise InvalidValue(reason, item) from None


def choice(*words: str) -> Callable[[object], str]:
    """Return a cast that accepts one of these words and nothing else."""

    def cast(value: object) -> str:
        word = string(value)
        if word not in words:
            raise InvalidValue(f"is not accepted; write {' or '.join(words)}", word)
        return word

    return cast
