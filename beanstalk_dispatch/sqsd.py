"""aws-sqsd's protocol: the headers of its POST, as a Delivery and back, and its options.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/using-features-managing-env-tiers.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .message import Message

HEADER = "X-Aws-Sqsd-"
TASK_NAME_ATTRIBUTE = "beanstalk.sqsd.task_name"
SCHEDULED_AT_ATTRIBUTE = "beanstalk.sqsd.scheduled_time"
PATH_ATTRIBUTE = "beanstalk.sqsd.path"
"""Message attributes by which the daemon marks a periodic task on the queue."""
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(slots=True, kw_only=True)  # not frozen: see Message
class Delivery:
    """One receive of one message, as the consumer reports it.

    ``queue`` is the queue's name, ``receive_count`` counts from 1, times are Unix seconds.
    ``task_name`` is set for a periodic task, which has no message of ours. ``group_id`` is the
    message group, where the consumer can tell it. ``body`` is what was received; ``message`` what
    it says, once it is decoded.
    """

    queue: str = ""
    message_id: str | None = None
    receive_count: int = 1
    first_received_at: float | None = None
    sent_at: float | None = None
    task_name: str | None = None
    scheduled_at: float | None = None
    group_id: str | None = None
    body: bytes | str = field(default=b"", repr=False)  # a traceback shows locals by their repr
    message: Message | None = None

    @classmethod
    def from_meta(cls, meta: Mapping[str, str]) -> Delivery:
        """Read the daemon's headers from a ``request.META``; what is not well-formed is left out.

        Not from ``request.headers``: making that takes longer than all that is done here.
        """
        get = meta.get
        count = get("HTTP_X_AWS_SQSD_RECEIVE_COUNT", "")
        return cls(
            queue=printable(get("HTTP_X_AWS_SQSD_QUEUE")) or "",
            message_id=printable(get("HTTP_X_AWS_SQSD_MSGID")),
            receive_count=max(int(count), 1) if _is_count(count) else 1,
            first_received_at=parse_time(get("HTTP_X_AWS_SQSD_FIRST_RECEIVED_AT")),
            sent_at=parse_time(get("HTTP_X_AWS_SQSD_SENT_AT")),
            task_name=printable(get("HTTP_X_AWS_SQSD_TASKNAME")),
            scheduled_at=parse_time(get("HTTP_X_AWS_SQSD_SCHEDULED_AT")),
        )

    def to_headers(self) -> dict[str, str]:
        """The headers the daemon would send for this delivery."""
        headers = {
            "Msgid": self.message_id or "",
            "Queue": self.queue,
            "Receive-Count": str(self.receive_count),
            "First-Received-At": format_time(self.first_received_at),
            "Sent-At": format_time(self.sent_at),
            "Taskname": self.task_name or "",
            "Scheduled-At": format_time(self.scheduled_at),
        }
        return {HEADER + name: value for name, value in headers.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The daemon's options and their defaults; times in seconds.

    https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html#command-options-general-elasticbeanstalksqsd
    """

    http_connections: int = 50
    connect_timeout: int = 5
    inactivity_timeout: int = 299
    visibility_timeout: int = 300
    error_visibility_timeout: int = 2
    mime_type: str = "application/json"


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def printable(text: str | None) -> str | None:
    """What may stand in a log line; None for anything else."""
    return text[:255] if text and text.isprintable() else None


def parse_time(text: str | None) -> float | None:
    """``2023-08-15T13:57:53Z`` in Unix seconds; None for anything else."""
    if not text or not text.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def format_time(moment: float | None) -> str:
    return "" if moment is None else datetime.fromtimestamp(moment, UTC).strftime(_TIME_FORMAT)
