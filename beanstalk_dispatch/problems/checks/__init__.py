"""System checks for conditions that break a worker in practice. None uses the network.

Each module has the checks of one subject. problems/findings.toml has the text of each id.
https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage

from beanstalk_dispatch import conf
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.problems.findings import problem

from . import installation  # noqa: F401 - importing a module adds its checks
from .registry import CHECKS


def check(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return the findings that need no network, in the order of the ids."""
    try:
        config = conf.get_config()
    except ConfigurationError as exc:
        return [problem("E001", exc=exc)]
    if config.is_set:
        # They import what runs tasks.
        from . import caches, contrib_rooms, endpoint, listed_tasks, security  # noqa: F401, PLC0415
    found = [message for find in CHECKS for message in find(config)]
    return sorted(found, key=lambda message: str(message.id))
