"""The registry of the checks, and of the machines on which each of them is called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from django.apps import AppConfig
from django.core import checks
from django.core.checks import CheckMessage

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import ConfigurationError

ID: Final = "beanstalk_dispatch"

Check = Callable[[Config], Iterator[CheckMessage]]
_CHECKS: Final[list[Check]] = []


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
    found = [message for find in _CHECKS for message in find(config)]
    return sorted(found, key=lambda message: str(message.id))


def on_every_machine(find: Check) -> Check:
    """Have ``check`` call this one."""
    _CHECKS.append(find)
    return find


def on_workers(find: Check) -> Check:
    """Have ``check`` call this one on workers only."""

    @on_every_machine
    @functools.wraps(find)
    def find_on_workers(config: Config) -> Iterator[CheckMessage]:
        if config.worker:
            yield from find(config)

    return find_on_workers
