"""The settings of the example project, with the URLs of the benchmarks."""

from __future__ import annotations

from example_settings.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.urls"
TASKS = {"default": {"BACKEND": "beanstalk_dispatch.contrib.tasks.SQSBackend"}}
LOGGING["loggers"] = {"django.tasks": {"level": "WARNING"}}  # noqa: F405
