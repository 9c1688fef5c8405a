"""The test project with views that schedule, and an SDK of its own if SENTRY_LIFECYCLE is set."""

from __future__ import annotations

import os
from typing import Any

import sentry_sdk

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.sentry_site"

if lifecycle := os.environ.get("SENTRY_LIFECYCLE"):
    options: dict[str, Any] = {"trace_lifecycle": lifecycle} if lifecycle == "stream" else {}
    sentry_sdk.init(
        release="own",
        traces_sample_rate=1.0,
        **options,
    )
