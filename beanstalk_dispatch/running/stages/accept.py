"""accept: refuse a body that is not a message of ours, or one that is too old."""

from __future__ import annotations

import time

from beanstalk_dispatch.conf.variables import MAX_AGE
from beanstalk_dispatch.exceptions import BadSignature
from beanstalk_dispatch.running.run import Run


def accept(run: Run) -> None:
    """Raise the exception of ``read``, or BadSignature if a message is too old.

    BadSignature is also raised for a message without its time, if there is a limit.
    """
    if run.exception is not None:
        raise run.exception
    if (limit := run.config.max_age) is None or run.delivery.is_periodic:
        return
    message = run.message
    if message.sent_at is None:
        raise BadSignature(
            f"the message does not say when it was sent, and {MAX_AGE.variable} is set"
        )
    age = time.time() - max(message.sent_at, message.not_before or 0)
    if age > limit.total_seconds():
        raise BadSignature(f"too old: sent {age:.0f} s ago; {MAX_AGE.variable} is {limit}")
