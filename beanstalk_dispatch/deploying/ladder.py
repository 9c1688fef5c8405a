"""The timeouts between a task and its message, each of which must be longer than the one before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from beanstalk_dispatch.exceptions import ConfigurationError

MAX_INACTIVITY_SECONDS: Final = 36_000
"""The longest InactivityTimeout.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html#command-options-general-elasticbeanstalksqsd
"""
OUTAGE_SECONDS: Final = 600
"""Seconds that a database may not answer without a message in the dead-letter queue."""
ERROR_VISIBILITY_SECONDS: Final = 60
"""The pause after a failure. Eleven of them, between twelve receives, outlast OUTAGE_SECONDS."""
MAX_RECEIVES: Final = 12
"""The number of receives after which SQS moves a message to the dead-letter queue."""

_STEP_SECONDS: Final = 10
_END_SECONDS: Final = 30
"""Seconds for the steps after a task's end: its interrupt, its hooks, and the answer."""

_CONSEQUENCES: Final[Mapping[str, str]] = {
    "the server's graceful timeout": "a deployment kills tasks that are within their limit",
    "nginx's proxy_read_timeout": "the daemon gets a 504 while the task runs, and its message is "
    "delivered again",
    "InactivityTimeout": "the daemon cuts the connection while the task runs, and its message is "
    "delivered again",
    "VisibilityTimeout": "SQS delivers the message to another machine while the task runs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The five timeouts, in seconds. None means that a timeout is not known."""

    task: float
    """The longest time limit of a task."""
    gunicorn: float | None = None
    """``--graceful-timeout``: for how long a stopping server waits for its requests."""
    nginx: float | None = None
    """``proxy_read_timeout``: for how long nginx waits for the answer."""
    inactivity: float | None = None
    """``InactivityTimeout``: for how long the daemon waits for the answer."""
    visibility: float | None = None
    """``VisibilityTimeout``: for how long SQS hides the message, from its receive on."""

    @classmethod
    def for_time_limit(cls, seconds: float) -> Ladder:
        """Return the shortest timeouts for tasks that may take ``seconds``.

        Raise ConfigurationError if the daemon cannot wait for such a task.
        """
        task = math.ceil(seconds)
        gunicorn = task + _END_SECONDS
        ladder = cls(
            task=task,
            gunicorn=gunicorn,
            nginx=gunicorn + _STEP_SECONDS,
            inactivity=gunicorn + 2 * _STEP_SECONDS,
            visibility=gunicorn + 3 * _STEP_SECONDS,
        )
        longest = MAX_INACTIVITY_SECONDS - _END_SECONDS - 2 * _STEP_SECONDS
        if task > longest:
            raise ConfigurationError(
                f"a task may take {task} s, but the daemon waits for {MAX_INACTIVITY_SECONDS} s at "
                f"most; set its time limit to {longest} s or less, or run it with beanstalk_worker"
            )
        return ladder

    def problems(self) -> Iterator[str]:
        """Yield a line for each timeout that is not longer than those before it."""
        lower_name, lower = "the longest time limit of a task", self.task
        steps = (self.gunicorn, self.nginx, self.inactivity, self.visibility)
        for (name, consequence), seconds in zip(_CONSEQUENCES.items(), steps, strict=True):
            if seconds is None:
                continue
            if seconds > lower:
                lower_name, lower = name, seconds
            else:
                yield (
                    f"{name}, {seconds:g} s, is not longer than {lower_name}, {lower:g} s: "
                    f"{consequence}"
                )
