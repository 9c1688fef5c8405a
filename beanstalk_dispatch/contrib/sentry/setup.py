"""init(): the SDK, set up from the environment, and the signals that it is for."""

from __future__ import annotations

import functools
import logging
import math
from typing import Any

from django.core.signals import request_started

from beanstalk_dispatch import signals
from beanstalk_dispatch.conf import Values

from . import errors, variables
from .client import is_sending, is_supported
from .sdk import sentry_sdk

logger = logging.getLogger("beanstalk_dispatch.sentry")


def init() -> None:
    """Set the SDK up from the environment, unless there is no SENTRY_DSN or it is set up already.

    Called when Django starts if a variable names SentrySafeTask or SentryObserver, and otherwise
    when the first such task runs. A wrong value counts as not set. At the end, wrong values raise
    one ConfigurationError that names them all.
    """
    signals.task_stuck.connect(_on_task_stuck)
    signals.worker_stopped.connect(_send_what_waits)
    signals.invocation_finished.connect(_send_what_waits)
    values = variables.get_values()
    if values[variables.DSN] and is_supported() and not sentry_sdk.get_client().is_active():
        from .transport import ErrorsFirstTransport

        sentry_sdk.init(transport=ErrorsFirstTransport, **_options_of(values))
    if not is_sending():
        request_started.connect(_on_request_started)
    variables.raise_problems()


@functools.cache
def init_on_first_use() -> None:
    """Call ``init`` for a task that runs; at most once. Log its errors."""
    try:
        init()
    except Exception as exc:
        logger.error("Sentry is only partly configured error=%s", exc)


def _options_of(values: Values) -> dict[str, Any]:
    """Return the options in the variables, as far as the SDK knows them."""
    options = {}
    for name, setting in variables.SDK_OPTIONS.items():
        if values[setting] is not None and name in sentry_sdk.consts.DEFAULT_OPTIONS:
            options[name] = values[setting]
        elif values[setting] is not None:
            logger.error(
                "variable has no effect variable=%s error=sentry-sdk %s does not know %s",
                setting.variable, sentry_sdk.VERSION, name,
            )  # fmt: skip
    return options


def _on_request_started(**_: Any) -> None:
    """Adopt a client that the project has set up after Django's start.

    Once there is one, requests have no span of this receiver. Tasks adopt the next client.
    """
    if is_sending():
        request_started.disconnect(_on_request_started)


def _on_task_stuck(*, delivery: Any, thread_id: int, **_: Any) -> None:
    if is_sending():
        errors.report_stuck(delivery, thread_id)


def _send_what_waits(*, seconds: float = math.inf, **_: Any) -> None:
    """Send the waiting events, before the process ends or Lambda suspends it.

    A worker may end without the SDK's own atexit. A process that Lambda has suspended may never
    continue.
    """
    if is_sending():
        allowed = sentry_sdk.get_client().options["shutdown_timeout"]
        sentry_sdk.flush(timeout=min(allowed, seconds))
