"""System checks for conditions that break a worker in practice. None uses the network.

Each module has the checks of one subject. docs/checks.md has a row for each id.
https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.checks import CheckMessage

from beanstalk_dispatch import conf
from beanstalk_dispatch.exceptions import ConfigurationError

from . import installation  # noqa: F401 - importing a module adds its checks
from .registry import CHECKS, ID


def check(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return the findings that need no network, in the order of the ids."""
    try:
        config = conf.get_config()
    except ConfigurationError as exc:
        hint = (
            "Correct the variables named above, where you have set them: 'eb printenv' shows those "
            "of an environment; others are in .env or in the Django settings."
        )
        return [checks.Error(str(exc), hint=hint, id=f"{ID}.E001")]
    if config.is_set:
        # They import what runs tasks.
        from . import caches, contrib_rooms, endpoint, listed_tasks, security  # noqa: F401, PLC0415
    found = [message for find in CHECKS for message in find(config)]
    return sorted(found, key=lambda message: str(message.id))
