"""Checks that no secret stands in the settings, and that no stranger's message runs."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SETTINGS, Config
from beanstalk_dispatch.problems.findings import problem

from .registry import on_every_machine, on_workers


@on_every_machine
def _published_secrets(config: Config) -> Iterator[CheckMessage]:
    for field, setting in SETTINGS.items():
        if setting.secret and setting.example in _values(config, field):
            yield problem("E022", variable=setting.variable)


@on_every_machine
def _secrets_in_settings(config: Config) -> Iterator[CheckMessage]:
    for field in ("sqs_key", "sqs_secret", "sqs_token", "signing_keys", "backlog_token"):
        if config.sources[field] != "settings":
            continue
        if not all(map(conf.is_in_environment, _values(config, field))):
            variable = SETTINGS[field].variable
            yield problem("W006", variable=variable)


@on_workers
def _missing_signing_keys(config: Config) -> Iterator[CheckMessage]:
    if not config.signing_keys:
        yield problem("W007")


def _values(config: Config, field: str) -> set[str]:
    """Return the values of a secret: the keys of a list, or the one value."""
    value = getattr(config, field, None) or ()
    return {value} if isinstance(value, str) else set(value)
