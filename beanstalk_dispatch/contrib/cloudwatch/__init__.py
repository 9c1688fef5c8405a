"""CloudWatch: metrics of tasks, switched on by one environment property.

    BEANSTALK_DISPATCH_EMBEDDED_METRICS=stdout

docs/metrics.md has more.
"""

from __future__ import annotations

from beanstalk_dispatch.running.definitions.configured import register_observers

from .metrics import observers

register_observers(observers)
