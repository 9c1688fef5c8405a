"""due: send a message again whose delay is longer than SQS allows."""

from __future__ import annotations

import time
from typing import Final

from beanstalk_dispatch.exceptions import MalformedMessage
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.messages.message import MAX_DELAY_DAYS
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.ending import cancelled, sent_again
from beanstalk_dispatch.running.run import Run

_MAX_WAIT_SECONDS: Final = (MAX_DELAY_DAYS + 1) * 86400  # a day for clocks that differ


def due(run: Run) -> Result | None:
    """Send the message again if its time has not come, unless it was cancelled."""
    message = run.message
    if (seconds := (message.not_before or 0.0) - time.time()) <= 0:
        return None
    if seconds > _MAX_WAIT_SECONDS:
        raise MalformedMessage(f"not_before is more than {MAX_DELAY_DAYS} days ahead")
    if record.is_cancelled(message.id, run.config):
        return cancelled(run)
    return sent_again(run, message, seconds, Outcome.DEFERRED)
