"""How long each kind of request to AWS may take."""

from __future__ import annotations

from typing import Final, NamedTuple

from beanstalk_dispatch.conf import Config

_MAX_CONNECT_SECONDS: Final = 2.0
_COMMON_WAIT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 5


class Timeouts(NamedTuple):
    """How long a client waits for an answer, and how often it tries."""

    connect: float
    """Seconds to open a connection."""
    read: float
    """Seconds to wait for the next bytes of an answer."""
    attempts: int
    """Requests in all, the first one included."""
    total: float | None = None
    """Seconds for all attempts. None begins that could end later."""


def send_timeouts(config: Config) -> Timeouts:
    """For sending, and for what is asked about a queue: within BEANSTALK_DISPATCH_SEND_TIMEOUT.

    An attempt that SQS refuses at once leaves enough time for another one.
    """
    total = config.send_timeout.total_seconds()
    connect = min(_MAX_CONNECT_SECONDS, total / 5)
    return Timeouts(connect=connect, read=total / 2, attempts=3, total=total)


def long_poll_timeouts(wait: int) -> Timeouts:
    """For receiving: SQS may take ``wait`` seconds to answer, and its answer a few seconds more.

    Short waits share their timeouts, and so their client.
    """
    read = max(wait, _COMMON_WAIT_SECONDS) + _ANSWER_SECONDS
    return Timeouts(connect=5, read=read, attempts=2)


SHORT_TIMEOUTS: Final = Timeouts(connect=3, read=4, attempts=2)
"""For deletes and visibility changes: a received message expires while they wait."""

DIAGNOSIS_TIMEOUTS: Final = Timeouts(connect=3, read=5, attempts=2)
"""For what the doctor asks while a person waits."""
