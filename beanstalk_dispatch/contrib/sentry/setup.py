"""init(): the SDK, set up from the environment."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import sentry_sdk
from sentry_sdk.integrations.logging import ignore_logger
from sentry_sdk.scope import add_global_event_processor

from beanstalk_dispatch import signals
from beanstalk_dispatch.conf import Values

from . import environment, privacy

logger = logging.getLogger("beanstalk_dispatch.sentry")

# What they log is reported by us, with more. A record of the same exception would come first,
# and Sentry's DedupeIntegration would then drop ours.
_REPORTED_BETTER: Final = ("beanstalk_dispatch.task",)
_FLUSH_SECONDS: Final = 2.0

Sampler = Callable[[Any], float]


def init() -> None:
    """Set the SDK up from the environment, unless there is no SENTRY_DSN or it is set up already.

    Called when Django starts if BEANSTALK_DISPATCH_SAFE_TASK names SentrySafeTask, and otherwise
    when the first such task runs. A wrong value counts as not set. At the end, wrong values raise
    one ConfigurationError that names them all.
    """
    for name in _REPORTED_BETTER:
        ignore_logger(name)
    _watch()
    values = environment.get_values()
    if values[environment.DSN] and not sentry_sdk.get_client().is_active():
        _init(values)
    if sentry_sdk.get_client().options.get("before_send") is not privacy.drop_message:
        # What it logs is of requests whose body, the message, would be in the event.
        ignore_logger("beanstalk_dispatch.endpoint")
    environment.raise_problems()


def _init(values: Values) -> None:
    options = {
        "dsn": values[environment.DSN],
        "environment": values[environment.ENVIRONMENT],
        "release": values[environment.RELEASE],
        "traces_sampler": _sampler_of(values[environment.TRACES_SAMPLE_RATE]),
        "profiles_sample_rate": values[environment.PROFILES_SAMPLE_RATE],
        "send_default_pii": values[environment.SEND_DEFAULT_PII],
        "before_send": privacy.drop_message,
        "before_send_transaction": privacy.drop_message,
    }
    given: Any = {name: value for name, value in options.items() if value is not None}
    sentry_sdk.init(**given)


@functools.cache
def _watch() -> None:
    """Once in a process: see every event, every delivery and the worker's end."""
    add_global_event_processor(privacy.scrub_carriers)
    signals.worker_stopped.connect(_on_worker_stopped)


@functools.cache
def init_on_first_use() -> None:
    try:
        init()
    except Exception as exc:
        logger.error("Sentry is only partly configured error=%s", exc)


def traces_sampler(otherwise: float | Sampler) -> Sampler:
    """A ``traces_sampler`` that leaves out the daemon's POST, whose task has a trace of its own.

    ``otherwise``: the rate of everything that continues no trace, or a sampler.
    """

    def sample(context: Any) -> float:
        if _is_daemons_post(context):
            return 0.0
        if callable(otherwise):
            return otherwise(context)
        parent = context.get("parent_sampled")
        return otherwise if parent is None else float(parent)

    return sample


def _sampler_of(rate: float | None) -> Sampler | None:
    return None if rate is None else traces_sampler(rate)


def _is_daemons_post(context: Mapping[str, Any]) -> bool:
    if "HTTP_X_AWS_SQSD_MSGID" in (context.get("wsgi_environ") or {}):
        return True
    headers = (context.get("asgi_scope") or {}).get("headers") or ()
    return any(name.lower() == b"x-aws-sqsd-msgid" for name, _ in headers)


def _on_worker_stopped(**_: Any) -> None:
    """Send what waits; the process may end without the SDK's own atexit."""
    sentry_sdk.flush(timeout=_FLUSH_SECONDS)
