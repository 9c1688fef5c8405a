"""Sentry: errors, traces and check-ins of tasks, switched on by one environment property.

    BEANSTALK_DISPATCH_SAFE_TASK=beanstalk_dispatch.contrib.sentry.SentrySafeTask

docs/sentry.md has the variables, and shows the pages of Sentry. The SDK is imported once it has a
destination.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("sentry_sdk") is None:
    raise ImportError("it needs sentry-sdk: pip install 'django-beanstalk-dispatch[sentry]'")

from .client import traces_sampler
from .privacy import drop_message
from .setup import init
from .task import SentryObserver, SentrySafeTask

__all__ = ["SentryObserver", "SentrySafeTask", "drop_message", "init", "traces_sampler"]
