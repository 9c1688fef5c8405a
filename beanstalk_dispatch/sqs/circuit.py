"""A circuit breaker: after a request that SQS did not answer in time, others fail at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from beanstalk_dispatch.process import clock

from .errors import is_timeout

PAUSE_SECONDS: Final = 5.0
"""How long requests fail at once after one that timed out. Then one request tries again."""

T = TypeVar("T")


class CircuitOpen(RuntimeError):
    """The request was not made, because SQS did not answer an earlier one in time."""


class Circuit:
    """Passes requests to one endpoint on. While it is open, none is made.

    Without it, each thread of a web process would wait for the whole timeout of a server that does
    not answer, one request after the other.
    """

    def __init__(self, *, longest_request: float) -> None:
        self._longest_request = longest_request
        """Seconds after which a request that tries again has ended."""
        self._open_until = 0.0
        """In monotonic seconds; 0 while the circuit is closed."""
        self._lock = threading.Lock()

    def call(self, request: Callable[..., T], /, **parameters: Any) -> T:
        """Make the request and return its answer. Raises what it raises, or CircuitOpen."""
        if self._open_until:
            self._take_turn()
        try:
            answer = request(**parameters)
        except Exception as exc:
            self._open_until = clock.monotonic() + PAUSE_SECONDS if is_timeout(exc) else 0.0
            raise
        self._open_until = 0.0
        return answer

    def _take_turn(self) -> None:
        """Let one caller through when the pause is over; the others wait for what it finds out."""
        with self._lock:
            now = clock.monotonic()
            if now < self._open_until:
                raise CircuitOpen(
                    "not tried, because SQS did not answer in time; the next try is in "
                    f"{self._open_until - now:.1f} s"
                )
            self._open_until = now + self._longest_request
