"""Sentry: errors, traces and check-ins of tasks, switched on by one environment property.

    BEANSTALK_DISPATCH_SAFE_TASK=beanstalk_dispatch.contrib.sentry.SentrySafeTask

docs/sentry.md has the variables, and what is to be seen in Sentry.
"""

from __future__ import annotations

try:
    import sentry_sdk  # noqa: F401
except ImportError as exc:
    raise ImportError(
        "it needs sentry-sdk: pip install 'django-beanstalk-dispatch[sentry]'"
    ) from exc

from .privacy import drop_message
from .setup import init, traces_sampler
from .task import SentrySafeTask

__all__ = ["SentrySafeTask", "drop_message", "init", "traces_sampler"]
