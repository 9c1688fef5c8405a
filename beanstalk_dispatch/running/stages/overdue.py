"""overdue: do not start a task that would end after its proxy has stopped waiting."""

from __future__ import annotations

from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.run import Run


def overdue(run: Run) -> Result | None:
    """Refuse a task that ends too late only because of the time that its request has waited.

    It is asked after the lease: a message that is done already is not to come again.
    """
    waited, patience = run.delivery.waited or 0.0, run.delivery.proxy_timeout
    if not run.time_limit <= patience < waited + run.time_limit:
        return None
    return Result(outcome=Outcome.OVERDUE, reason="the request waited for too long")
