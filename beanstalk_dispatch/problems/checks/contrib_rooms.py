"""Checks that the optional parts which variables turn on are installed and have all they need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import OUTBOX, OUTBOX_DATABASES, RESULTS
from beanstalk_dispatch.logging.log_lines import joined

from .registry import ID, on_every_machine

RESULTS_APP: Final = "beanstalk_dispatch.contrib.results"


@on_every_machine
def _missing_outbox_app(config: Config) -> Iterator[CheckMessage]:
    if not config.uses_outbox:
        return
    from beanstalk_dispatch.scheduling import outbox  # noqa: PLC0415

    if outbox.registered() is None:
        yield checks.Error(
            f"{OUTBOX.variable} is {config.outbox}, but {outbox.APP!r} is not in INSTALLED_APPS.",
            hint="Add it to INSTALLED_APPS, and run 'manage.py migrate'.",
            id=f"{ID}.E008",
        )


@on_every_machine
def _unknown_outbox_databases(config: Config) -> Iterator[CheckMessage]:
    unknown = [name for name in config.outbox_databases if name not in settings.DATABASES]
    if config.uses_outbox and unknown:
        yield checks.Error(
            f"{OUTBOX_DATABASES.variable} lists {joined(unknown)}, which DATABASES "
            f"does not; known: {joined(settings.DATABASES)}.",
            hint="Name aliases of DATABASES.",
            id=f"{ID}.E009",
        )


@on_every_machine
def _rooms_that_cannot_be_imported(config: Config) -> Iterator[CheckMessage]:
    for problem in conf.import_rooms():
        yield checks.Error(
            f"{problem}.", hint="Install what it needs, or unset the variable.", id=f"{ID}.E010"
        )


@on_every_machine
def _missing_results_app(config: Config) -> Iterator[CheckMessage]:
    if config.results == "db" and not apps.is_installed(RESULTS_APP):
        yield checks.Error(
            f"{RESULTS.variable} is db, but the table of results is not installed.",
            hint=f"Add {RESULTS_APP!r} to INSTALLED_APPS, and run 'manage.py migrate'.",
            id=f"{ID}.E012",
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
