"""A circuit breaker: after a request that SQS did not answer in time, others fail at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from beanstalk_dispatch.process import clock

from .errors import is_timeout

PAUSE_SECONDS: Final = 5.0
"""The seconds for which requests fail at once after one that timed out.

Then one request tries again.
"""

T = TypeVar("T")


class CircuitOpen(RuntimeError):
    """The error of a request that was not made, because an earlier one got no answer in time."""


class Circuit:
    """A circuit breaker around the requests to one endpoint. While it is open, none is made.

    Without it, each thread of a web process would wait for the whole timeout of a server that does
    not answer, one request after the other.
    """

    def __init__(self, *, longest_request: float) -> None:
        self._longest_request = longest_request
        """The seconds after which a request that tries again has ended."""
        self._open_until = 0.0
        """The time until which the circuit is open, in monotonic seconds; 0 while it is closed."""
        self._lock = threading.Lock()

    def call(self, request: Callable[..., T], /, **parameters: Any) -> T:
        """Make the request and return its answer.

        Raise CircuitOpen if the request is not made, or the request's own exception.
        """
        if self._open_until:
            self._let_one_through()
        try:
            answer = request(**parameters)
        except Exception as exc:
            self._open_until = clock.monotonic() + PAUSE_SECONDS if is_timeout(exc) else 0.0
            raise
        self._open_until = 0.0
        return answer

    def _let_one_through(self) -> None:
        """Let one caller through when the pause is over. Raise CircuitOpen for the others."""
        with self._lock:
            now = clock.monotonic()
            if now < self._open_until:
                raise CircuitOpen(
                    "not tried, because SQS did not answer in time; the next try is in "
                    f"{self._open_until - now:.1f} s"
                )
            self._open_until = now + self._longest_request
