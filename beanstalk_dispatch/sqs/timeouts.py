"""The timeouts of each kind of request to AWS."""

from __future__ import annotations

from typing import Final, NamedTuple

from beanstalk_dispatch.conf import Config

_MAX_CONNECT_SECONDS: Final = 2.0
_COMMON_WAIT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 5


class Timeouts(NamedTuple):
    """The longest waits of a client for an answer, and the number of its attempts."""

    connect: float
    """The seconds to open a connection."""
    read: float
    """The seconds to wait for the next bytes of an answer."""
    attempts: int
    """The number of requests in all, the first one included."""
    total: float | None = None
    """The seconds for all attempts. None begins that could end later."""


def send_timeouts(config: Config) -> Timeouts:
    """Return the timeouts for sending, and for questions about a queue.

    All attempts end within BEANSTALK_DISPATCH_SEND_TIMEOUT. An attempt that SQS refuses at once
    leaves enough time for another one.
    """
    total = config.send_timeout.total_seconds()
    connect = min(_MAX_CONNECT_SECONDS, total / 5)
    return Timeouts(connect=connect, read=total / 2, attempts=3, total=total)


def long_poll_timeouts(wait: int) -> Timeouts:
    """Return the timeouts for receiving: SQS may take ``wait`` seconds and a few more to answer.

    Short waits share their timeouts, and so their client.
    """
    read = max(wait, _COMMON_WAIT_SECONDS) + _ANSWER_SECONDS
    return Timeouts(connect=5, read=read, attempts=2)


SHORT_TIMEOUTS: Final = Timeouts(connect=3, read=4, attempts=2)
"""The timeouts for deletes and visibility changes: a received message expires while they wait."""

DIAGNOSIS_TIMEOUTS: Final = Timeouts(connect=3, read=5, attempts=2)
"""The timeouts for the doctor's questions, while a person waits."""
