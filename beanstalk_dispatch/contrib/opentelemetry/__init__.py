"""OpenTelemetry: spans and metrics of tasks, switched on by one environment property.

    BEANSTALK_DISPATCH_OBSERVERS=beanstalk_dispatch.contrib.opentelemetry.TracingObserver

docs/opentelemetry.md has more. The project sets up the SDK, or ``opentelemetry-instrument`` does.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("opentelemetry") is None:
    raise ImportError(
        "it needs opentelemetry-api: pip install 'django-beanstalk-dispatch[opentelemetry]'"
    )

from .observer import ContinuingObserver, TracingObserver

__all__ = ["ContinuingObserver", "TracingObserver"]
