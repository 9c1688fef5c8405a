"""Checks that the app of the core is installed beside one of a contrib room."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage

from beanstalk_dispatch.problems.findings import ID, problem


def check_core(**kwargs: Any) -> list[CheckMessage]:
    """Return an error without the core's app, which has the commands and the other checks."""
    if apps.is_installed(ID):
        return []
    return [problem("E024")]
