"""The moment by which the work of a child should have ended. Its parent ends one that is late.

A child that hangs in C code cannot say so. So it writes this moment down before each piece of work,
where its parent can read it. In the process of a consumer nobody reads it, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from beanstalk_dispatch.process import clock, state

REST_SECONDS: Final = 60.0
"""The seconds for all that has no time limit of its own, such as the update of a lease."""

Write = Callable[[float], object]


class _ExpectedEnd:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Write nothing, as in a process that is not a child."""
        self.write: Write | None = None


EXPECTED: Final = _ExpectedEnd()
state.declare(EXPECTED.forget)


def expect_end(seconds: float) -> None:
    """Expect what begins now to have ended in ``seconds``."""
    if EXPECTED.write is not None:
        EXPECTED.write(clock.monotonic() + seconds)
