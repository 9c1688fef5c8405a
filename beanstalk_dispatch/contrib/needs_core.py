"""The check that the core is installed, for contrib apps: without it nothing else would check."""

from __future__ import annotations

from typing import Any, Final

from django.apps import apps
from django.core import checks
from django.core.checks import CheckMessage

ID: Final = "beanstalk_dispatch"


def register_check() -> None:
    """Add the check. Django keeps one of it, whatever the number of apps that call this."""
    checks.register(check, ID)


def check(*args: Any, **kwargs: Any) -> list[CheckMessage]:
    """Return an error if the core is not in INSTALLED_APPS."""
    if apps.is_installed(ID):
        return []
    return [
        checks.Error(
            f"INSTALLED_APPS has a contrib app of {ID}, and not {ID!r} itself: there is no "
            "check, no command and no line at the start.",
            hint=f"Add {ID!r} to INSTALLED_APPS, before the contrib apps.",
            id=f"{ID}.E032",
        )
    ]
