"""Translates a message of Celery on SQS into a message of ours.

https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import MalformedMessage
from beanstalk_dispatch.messages.bodies import parse_json, read_unsigned

_JSON: Final = "application/json"
_WRITTEN_AS_OURS: Final = frozenset({"datetime", "date", "time", "decimal"})
"""The types of kombu whose strings are those that we write, too."""
_SUCCESSORS: Final = ("chain", "chord", "callbacks", "errbacks")
"""The members that name tasks which Celery would run after this one."""


def translate(body: bytes | str, queue: str) -> dict[str, Any] | None:
    """Return the members of our message for a body of Celery from the queue of this name.

    Return None for any other body, and for a queue that the variable does not name. Raise
    MalformedMessage for a task that would not run here as it does in Celery.
    """
    config = get_config()
    if not {queue, config.alias_of(queue)} & {*config.celery_queues}:
        return None
    try:
        envelope = read_unsigned(body)
    except MalformedMessage:
        return None
    headers = envelope.get("headers")
    if "content-type" not in envelope or not isinstance(headers, dict):
        return None
    try:
        return _members_of(envelope, headers)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise _refused(headers, "it cannot be read") from None


def _members_of(envelope: Mapping[str, Any], headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of our message. Raise several errors for a body of a wrong form."""
    if "task" not in headers:
        raise _refused(headers, "it is not of task_protocol 2")
    if envelope["content-type"] != _JSON or headers.get("compression"):
        raise _refused(headers, "only JSON that is not compressed can be read")
    args, kwargs, embedded = parse_json(base64.b64decode(envelope["body"], validate=True).decode())
    if not isinstance(args, list):
        raise TypeError
    for name in _SUCCESSORS:
        if embedded.get(name):
            raise _refused(headers, f"its {name} would be lost; have Celery run it")
    written_args = [_write(each, headers) for each in args]
    written_kwargs = {name: _write(each, headers) for name, each in kwargs.items()}
    limits = [each for each in headers.get("timelimit") or () if each is not None]
    return {
        "function": headers["task"],
        "args": written_args,
        "kwargs": written_kwargs,
        "id": headers.get("id"),
        "attempt": (headers.get("retries") or 0) + 1,
        "not_before": _moment(headers.get("eta")),
        "not_after": _moment(headers.get("expires")),
        "options": {"timeout": min(limits)} if limits else {},
        "typed": [
            *(index for index, each in enumerate(args) if written_args[index] != each),
            *(name for name, each in kwargs.items() if written_kwargs[name] != each),
        ],
    }


def _moment(text: str | None) -> float | None:
    """Return a moment of Celery's in Unix seconds. One without a time zone is in UTC."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _write(value: Any, headers: Mapping[str, Any]) -> Any:
    """Return an argument as our sender would have converted it: see typed_arguments."""
    if isinstance(value, list):
        return [_write(each, headers) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {"__type__", "__value__"}:
        return {name: _write(each, headers) for name, each in value.items()}
    kind, content = value["__type__"], value["__value__"]
    if kind in _WRITTEN_AS_OURS:
        return content
    if kind == "uuid":
        return str(UUID(content["hex"]))
    raise _refused(headers, f"an argument is of kombu's type {kind!r:.80}")


def _refused(headers: Mapping[str, Any], reason: str) -> MalformedMessage:
    return MalformedMessage(f"a message of Celery for {headers.get('task')!r:.80}: {reason}")
