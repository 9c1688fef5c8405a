"""The SDK's client, if there is one, and the options that are added to it."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf.variables import WORKER

from . import privacy
from .sdk import sentry_sdk

logger = logging.getLogger("beanstalk_dispatch.sentry")

Sampler = Callable[[Any], float]
_adopted: Final[WeakSet[Any]] = WeakSet()
"""The clients that have been adopted."""


def is_sending() -> bool:
    """Return True if a client has a destination to send to. A new client is adopted.

    The project may set the SDK up at any time, and may do so again.
    """
    if "sentry_sdk" not in sys.modules:
        return False
    client = sentry_sdk.get_client()
    if not client.is_active() or client.transport is None or not is_supported():
        return False
    if client not in _adopted:
        _adopted.add(client)
        _adopt(client.options)
    return True


@functools.cache
def is_supported() -> bool:
    """Return True if the SDK has everything that this room calls. If not, one line says so."""
    # SDK 3 has not. By default it also sends the arguments of tasks.
    if hasattr(sentry_sdk, "start_transaction"):
        return True
    logger.error(
        "Sentry gets nothing from tasks error=sentry-sdk %s is not supported; "
        "pip install 'django-beanstalk-dispatch[sentry]'",
        sentry_sdk.VERSION,
    )
    return False


def _adopt(options: dict[str, Any]) -> None:
    """Add the options that tasks need to a client's, before those that the project has given."""
    from sentry_sdk.integrations.logging import ignore_logger

    # What it logs is reported by us, with more. A record of the same exception would come first,
    # and Sentry's DedupeIntegration would then drop ours.
    ignore_logger("beanstalk_dispatch.task")
    for name in ("before_send", "before_send_transaction"):
        options[name] = _clean_before(options.get(name))
    sampler = options.get("traces_sampler") or options.get("traces_sample_rate")
    if sampler is not None:  # otherwise the SDK does not trace; with a sampler it would start to
        options["traces_sampler"] = traces_sampler(sampler)
    if conf.values_of(conf.CORE)[WORKER]:
        # A failed task would count as a crash of a user's session, but a worker has no users.
        options["auto_session_tracking"] = False


def _clean_before(otherwise: privacy.Processor | None) -> privacy.Processor:
    def before_send(event: privacy.Event, hint: Any) -> privacy.Event | None:
        kept = privacy.clean(event, hint)
        return kept if kept is None or otherwise is None else otherwise(kept, hint)

    return before_send


def traces_sampler(otherwise: float | Sampler) -> Sampler:
    """Return a ``traces_sampler`` that leaves out the daemon's POST: its task has its own trace.

    Every client's sampler is wrapped in it. ``otherwise`` is the rate of everything that continues
    no trace, or a sampler.
    """

    def sample(context: Any) -> float:
        environ = context.get("wsgi_environ") or {}
        headers = (context.get("asgi_scope") or {}).get("headers") or ()
        is_from_daemon = any(name.lower() == privacy.DAEMON_HEADER.encode() for name, _ in headers)
        if is_from_daemon or "HTTP_X_AWS_SQSD_MSGID" in environ:
            return 0.0
        if callable(otherwise):
            return otherwise(context)
        parent = context.get("parent_sampled")
        # Anyone who may send a message can say that its trace is sampled. Rate 0 stays 0.
        return otherwise if parent is None or not otherwise else float(parent)

    return sample
