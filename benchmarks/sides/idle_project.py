"""A project that starts, and schedules nothing. IDLE_APPS names its apps."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

DISTRIBUTIONS = ["django"]


def operations() -> dict[str, Callable[..., Any]]:
    import django
    from django.conf import settings
    from django.core.checks import run_checks

    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", *os.environ["IDLE_APPS"].split()],
        SECRET_KEY="for-benchmarks-only",
    )
    django.setup()
    run_checks()
    return {"one": lambda count: None}
