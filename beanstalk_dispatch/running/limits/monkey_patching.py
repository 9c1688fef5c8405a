"""Detection of gevent and eventlet, which replace threads by greenlets.

No time limit works in a greenlet. The watchdog of ``time_limit`` would be a greenlet too: a task
that does not give up control keeps it from running, and an asynchronous exception has no thread of
its own to be raised in.
"""

from __future__ import annotations

import logging
import sys

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import ConfigurationError

logger = logging.getLogger("beanstalk_dispatch")


def patched_by() -> str:
    """Return ``gevent`` or ``eventlet``; the empty string if threads are threads."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        return "gevent"
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return "eventlet"
    return ""


def log_if_patched() -> None:
    """Log one line on a worker if no time limit works."""
    library = patched_by()
    try:
        is_worker = get_config().worker
    except ConfigurationError:  # which is logged already
        return
    if library and is_worker:
        logger.error(
            "start time_limits=no reason=%s: tasks are not interrupted, however long they take; "
            "run gunicorn with --worker-class gthread",
            library,
        )
