"""aws-sqsd's protocol: the headers of its POST, as a Delivery and back, and its options.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/using-features-managing-env-tiers.html
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from beanstalk_dispatch.conf.variables import WORKER
from beanstalk_dispatch.messages.delivery import DEFAULT_PROXY_TIMEOUT, Delivery
from beanstalk_dispatch.messages.frozen import make

HEADER = "X-Aws-Sqsd-"
TASK_NAME_ATTRIBUTE = "beanstalk.sqsd.task_name"
SCHEDULED_AT_ATTRIBUTE = "beanstalk.sqsd.scheduled_time"
PATH_ATTRIBUTE = "beanstalk.sqsd.path"
"""Message attributes by which the daemon marks a periodic task on the queue."""
MESSAGE_ID: Final = "HTTP_X_AWS_SQSD_MSGID"
"""The key in ``request.META`` of the id that SQS gave the message."""
DOCTOR_KEY = "beanstalk_dispatch.doctor"
"""The key in ``request.META`` that marks the request of beanstalk_doctor in its own process.

No client can set it: a header of a client becomes a key that starts with ``HTTP_``.
"""
MEANINGS: Final[Mapping[int, str]] = {
    301: "a redirect: HttpPath without its last part, or a redirect to https",
    302: "a redirect: to a login page, or to another language",
    400: "'localhost' is not in ALLOWED_HOSTS, or the message is malformed or unknown",
    403: "not signed with the worker's key, CSRF protection, or an untrusted peer",
    404: f"HttpPath is wrong, or {WORKER.variable} is not True",
    409: "the same message runs already: VisibilityTimeout is shorter than the task",
    413: "nginx's client_max_body_size is smaller than the message",
    500: "the task failed, or the configuration is wrong",
    502: "gunicorn does not run, or ended while it ran a task",
    503: "the machine drains, or a request waited too long for a thread",
    504: "the task took longer than nginx's proxy_read_timeout",
}
"""The meaning of each answer to the daemon that is not 200."""
_COUNT = re.compile(r"[0-9]{1,9}")
_REQUEST_START = re.compile(r"(?:t=)?(\d{10}\.\d{3})")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def delivery_from_meta(meta: Mapping[str, str], body: bytes = b"") -> Delivery:
    """Read the daemon's headers from a ``request.META``.

    A header that is not well-formed is left out.

    ``request.headers`` is not used: making it takes longer than all the work of this function.
    """
    get = meta.get
    facts: dict[str, Any] = {"body": body}
    if start := get("HTTP_X_REQUEST_START"):
        timeout = get("HTTP_X_PROXY_READ_TIMEOUT", "")
        facts["waited"], facts["proxy_timeout"] = _read_proxys_headers(start, timeout)
    for key, name, read in _FACTS_IN_META:
        if (text := get(key)) and (value := read(text)) is not None:
            facts[name] = value
    return make(Delivery, facts)


def delivery_from_attributes(
    body: str,
    attributes: Mapping[Any, str],
    message_attributes: Mapping[str, str | None],
    **facts: Any,
) -> Delivery:
    """Return the delivery that the daemon would report for a message with these attributes of SQS.

    ``message_attributes`` are those of the sender. ``facts`` are the other members.
    """
    task_name = printable(message_attributes.get(TASK_NAME_ATTRIBUTE))
    return Delivery(
        body="" if task_name else body,
        receive_count=int(attributes.get("ApproximateReceiveCount", "1")),
        first_received_at=_to_seconds(attributes.get("ApproximateFirstReceiveTimestamp")),
        sent_at=_to_seconds(attributes.get("SentTimestamp")),
        task_name=task_name,
        scheduled_at=parse_time(message_attributes.get(SCHEDULED_AT_ATTRIBUTE)),
        group_id=attributes.get("MessageGroupId"),
        **facts,
    )


def _to_seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None


def _read_proxys_headers(start: str, timeout: str) -> tuple[float | None, float]:
    """Return for how long nginx has had the request (``t=${msec}``), and for how long it waits."""
    if (match := _REQUEST_START.fullmatch(start)) is None:
        return None, DEFAULT_PROXY_TIMEOUT
    waited = max(time.time() - float(match[1]), 0.0)
    return waited, float(timeout) if _COUNT.fullmatch(timeout) else DEFAULT_PROXY_TIMEOUT


def headers_of(delivery: Delivery) -> dict[str, str]:
    """Return the headers that the daemon would send for this delivery."""
    return {
        HEADER + header: write(value)
        for header, (name, _, write) in _FACTS.items()
        if (value := getattr(delivery, name)) not in {None, ""}
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsdOptions:
    """The daemon's options and their defaults; times in seconds.

    https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html#command-options-general-elasticbeanstalksqsd
    """

    http_connections: int = 50
    connect_timeout: int = 5
    inactivity_timeout: int = 299
    visibility_timeout: int = 300
    error_visibility_timeout: int = 2
    mime_type: str = "application/json"


def printable(text: str | None) -> str | None:
    """Return the string, shortened for a log line; None if it is empty or not printable."""
    return text[:255] if text and text.isprintable() else None


def parse_time(text: str | None) -> float | None:
    """Return a time such as ``2023-08-15T13:57:53Z`` in Unix seconds; None for anything else."""
    if not text or not text.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def format_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime(_TIME_FORMAT)


def _count(text: str) -> int | None:
    return max(int(text), 1) if _COUNT.fullmatch(text) else None


# Header → the fact of a Delivery, how it is read, and how it is written.
_FACTS: Final[Mapping[str, tuple[str, Callable[[str], Any], Callable[[Any], str]]]] = {
    "Msgid": ("message_id", printable, str),
    "Queue": ("queue", printable, str),
    "Receive-Count": ("receive_count", _count, str),
    "First-Received-At": ("first_received_at", parse_time, format_time),
    "Sent-At": ("sent_at", parse_time, format_time),
    "Taskname": ("task_name", printable, str),
    "Scheduled-At": ("scheduled_at", parse_time, format_time),
}
_FACTS_IN_META: Final = [
    ("HTTP_" + (HEADER + header).upper().replace("-", "_"), name, read)
    for header, (name, read, _) in _FACTS.items()
]
