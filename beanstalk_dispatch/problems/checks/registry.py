"""The registry of the checks, and of the machines on which each of them is called."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Final

from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import Config

Check = Callable[[Config], Iterator[CheckMessage]]
CHECKS: Final[list[Check]] = []


def on_every_machine(find: Check) -> Check:
    """Have ``check`` call this one."""
    CHECKS.append(find)
    return find


def on_workers(find: Check) -> Check:
    """Have ``check`` call this one on workers only."""

    @on_every_machine
    @functools.wraps(find)
    def find_on_workers(config: Config) -> Iterator[CheckMessage]:
        if config.worker:
            yield from find(config)

    return find_on_workers
