"""Checks that the optional parts which variables turn on are installed and have all they need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.problems.findings import problem

from .registry import on_every_machine

RESULTS_APP: Final = "beanstalk_dispatch.contrib.results"


@on_every_machine
def _missing_outbox_app(config: Config) -> Iterator[CheckMessage]:
    if not config.uses_outbox:
        return
    from beanstalk_dispatch.scheduling import outbox  # noqa: PLC0415

    if outbox.registered() is None:
        yield problem("E008", outbox=config.outbox, app=outbox.APP)


@on_every_machine
def _unknown_outbox_databases(config: Config) -> Iterator[CheckMessage]:
    unknown = [name for name in config.outbox_databases if name not in settings.DATABASES]
    if config.uses_outbox and unknown:
        yield problem("E009", unknown=joined(unknown), known=joined(settings.DATABASES))


@on_every_machine
def _rooms_that_cannot_be_imported(config: Config) -> Iterator[CheckMessage]:
    for reason in conf.import_rooms():
        yield problem("E010", reason=reason)


@on_every_machine
def _missing_results_app(config: Config) -> Iterator[CheckMessage]:
    if config.results == "db" and not apps.is_installed(RESULTS_APP):
        yield problem("E012")


@on_every_machine
def _contrib_variables(config: Config) -> Iterator[CheckMessage]:
    for group in conf.registered_groups():
        if group is not conf.CORE:  # whose problems are E001
            for reason in conf.values_of(group).problems:
                yield problem("W015", reason=reason)
