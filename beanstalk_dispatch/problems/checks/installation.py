"""The checks of every project: of other libraries, and of names that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.conf import settings
from django.core.checks import CheckMessage

import beanstalk_dispatch
from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SETTINGS, Config, removed
from beanstalk_dispatch.conf.environment import is_given
from beanstalk_dispatch.logging.log_lines import joined, quoted
from beanstalk_dispatch.problems.findings import problem
from beanstalk_dispatch.running.limits.monkey_patching import patched_by

from .registry import on_every_machine, on_workers

_IN_ENV_FILE: Final = r"(?m)^\ufeff?(?:export\s+)?(BEANSTALK_\w+)=."
_FILE_OF_0_1: Final = Path(beanstalk_dispatch.__file__).parent / "execution.py"
"""A file of beanstalk-dispatch 0.1 that this package does not have."""


@on_every_machine
def _both_distributions(config: Config) -> Iterator[CheckMessage]:
    if _FILE_OF_0_1.exists():
        yield problem("E019")


@on_every_machine
def _removed_middleware(config: Config) -> Iterator[CheckMessage]:
    for name in settings.MIDDLEWARE:
        if advice := removed.MIDDLEWARE.get(name):
            yield problem("E020", name=name, advice=advice)


@on_every_machine
def _unknown_variables(config: Config) -> Iterator[CheckMessage]:
    for name, closest in conf.unknown_variables().items():
        if closest:
            hint = f"Did you mean {closest}?"
        elif advice := conf.replacement_of(name):
            hint = f"Remove it. {advice}"
        else:
            known = joined([setting.variable for setting in SETTINGS.values()], limit=len(SETTINGS))
            hint = f"Remove it. The variables are: {known}"
        yield problem("W008", name=quoted(name), hint=hint)


@on_workers
def _no_time_limits(config: Config) -> Iterator[CheckMessage]:
    if library := patched_by():
        yield problem("W018", library=library)


@on_every_machine
def _overruled_variables(config: Config) -> Iterator[CheckMessage]:
    if names := conf.overruled_variables():
        yield problem("W028", names=joined(names))


@on_every_machine
def _runs_in_the_calling_process(config: Config) -> Iterator[CheckMessage]:
    if config.execute_synchronously and not (settings.DEBUG or conf.is_test()):
        yield problem("W031")


@on_every_machine
def _unread_env_file(config: Config) -> Iterator[CheckMessage]:
    try:
        names = re.findall(_IN_ENV_FILE, Path(".env").read_text("utf-8"))
    except (OSError, ValueError):
        return
    if unread := [name for name in names if not is_given(name)]:
        yield problem("W032", names=joined(unread))
