"""The check that each variable of the environment is read."""

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
