"""Checks that each variable of the environment is read, and can be read by its contrib room."""

from __future__ import annotations

from collections.abc import Iterator

from django.core import checks
from django.core.checks import CheckMessage

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SETTINGS, Config
from beanstalk_dispatch.logging.log_lines import joined

from .registry import ID, on_every_machine


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
        yield checks.Warning(
            f"{name} is set, but beanstalk_dispatch has no variable of that name.",
            hint=hint,
            id=f"{ID}.W008",
        )


@on_every_machine
def _contrib_variables(config: Config) -> Iterator[CheckMessage]:
    for group in conf.registered_groups():
        if group is not conf.CORE:  # whose problems are E001
            for problem in conf.values_of(group).problems:
                yield checks.Warning(
                    f"{problem}.",
                    hint="Correct the variable. Until then it counts as not set.",
                    id=f"{ID}.W015",
                )
