"""The base of the apps of contrib rooms, and the check that the core's app is installed, too."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.core import checks
from django.core.checks import CheckMessage

from beanstalk_dispatch.problems.findings import ID, problem


class ContribApp(AppConfig):
    """The app of a contrib room that has models."""

    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        checks.register(check_core, ID)


def check_core(**kwargs: Any) -> list[CheckMessage]:
    """Return an error without the core's app, which has the commands and the other checks."""
    if apps.is_installed(ID):
        return []
    return [problem("E024")]
