"""Checks that the app of the core is installed beside one of a contrib room."""

from __future__ import annotations

from typing import Any, Final

from django.apps import apps
from django.core import checks
from django.core.checks import CheckMessage

ID: Final = "beanstalk_dispatch"


def check_core(**kwargs: Any) -> list[CheckMessage]:
    """Return an error without the core's app, which has the commands and the other checks."""
    if apps.is_installed(ID):
        return []
    return [
        checks.Error(
            "INSTALLED_APPS has an app of beanstalk_dispatch.contrib, and not the core's: there is "
            "no command, no check and no log line at the start.",
            hint=f"Add {ID!r} to INSTALLED_APPS.",
            id=f"{ID}.E024",
        )
    ]
