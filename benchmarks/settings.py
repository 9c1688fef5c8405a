"""The example project's settings, with the benchmark's two views."""

from __future__ import annotations

from example_settings.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.urls"
