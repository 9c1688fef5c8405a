"""The SENTRY_* variables that this room reads; the SDK itself reads more.

They are a group of their own: a wrong value counts as not set, and breaks nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Setting, SettingsGroup, Values, casts, flag
from beanstalk_dispatch.exceptions import ConfigurationError

from .sdk import sentry_sdk

_PREFIX: Final = "SENTRY_"
_cast_count: Final = casts.integer(1, 99_999)


def cast_dsn(value: object) -> str | None:
    """Return a DSN that the SDK can send to, or None for an empty one.

    In Django's settings an empty DSN is how Sentry's documentation turns the SDK off.
    """
    dsn = casts.string(value)
    if not dsn:
        return None
    try:
        sentry_sdk.utils.Dsn(dsn)
    except ValueError:
        reason = "is not a DSN; copy it from Client Keys (DSN) in your Sentry project's settings"
        raise casts.InvalidValue(reason, dsn) from None
    return dsn


def cast_receives(value: object) -> tuple[int, ...]:
    """Read numbers that are separated by whitespace or commas."""
    is_list = isinstance(value, list | tuple)
    items: Any = value if is_list else re.split(r"[\s,]+", str(value).strip())
    return tuple(map(_cast_count, items))


_BOOL: Final[Mapping[str, Any]] = {"form": "bool", "cast": casts.boolean, "example": "True"}
_RATE: Final[Mapping[str, Any]] = {"form": "0 to 1", "cast": casts.rate, "example": "1"}


def _optional(variable: str, default_text: str, meaning: str, **members: Any) -> Setting[Any]:
    """Return a variable that is None where it is not set, unless ``members`` has a default."""
    members = {"default": None} | members
    return Setting(variable=variable, default_text=default_text, meaning=meaning, **members)


DSN: Final[Setting[str | None]] = _optional(
    "SENTRY_DSN", "none",
    "The client key (DSN) of the Sentry project.",
    form="URL", cast=cast_dsn, example="https://0123456789abcdef@o1.ingest.sentry.io/1",
    secret=True,
)  # fmt: skip
_SDK_SETTINGS: Final = (
    DSN,
    _optional("SENTRY_ENVIRONMENT", "production", "The environment in Sentry.",
              form="string", cast=casts.string, example="laptop"),
    _optional("SENTRY_RELEASE", "the git commit, if there is one",
              "The version of your project.",
              form="string", cast=casts.string, example="1.0"),
    _optional("SENTRY_TRACES_SAMPLE_RATE", "no traces",
              "The share of requests and tasks traced.", **_RATE),
    _optional("SENTRY_PROFILES_SAMPLE_RATE", "no profiles",
              "The share of these profiled.", **_RATE),
    _optional("SENTRY_SAMPLE_RATE", "1", "The share of errors sent.", **_RATE),
    _optional("SENTRY_SEND_DEFAULT_PII", "False",
              "Send personal data, and with it the arguments of tasks.", **_BOOL),
    _optional("SENTRY_INCLUDE_LOCAL_VARIABLES", "True",
              "Send the local variables of stack frames.", **_BOOL),
    _optional("SENTRY_ENABLE_LOGS", "False",
              "Send log records to Sentry's Logs, in the task's trace.",
              **_BOOL),
    _optional("SENTRY_SHUTDOWN_TIMEOUT", "2s",
              "How long a process waits at its end for events to be sent.",
              form="duration", cast=lambda value: casts.duration(value).total_seconds(),
              example="2s"),
    _optional("SENTRY_TRANSPORT_QUEUE_SIZE", "1000",
              "How many errors may wait, and half as many traces.",
              form="number", cast=_cast_count, example="1000", default=1000),
)  # fmt: skip
SDK_OPTIONS: Final = {
    setting.variable.removeprefix(_PREFIX).lower(): setting for setting in _SDK_SETTINGS
}
"""The SDK's options that variables set. Each variable has the name of its option."""

REPORT_RETRIES: Final = flag("SENTRY_REPORT_RETRIES", "Also report a failure that will be retried.")
REPORT_RECEIVES: Final[Setting[tuple[int, ...]]] = _optional(
    "SENTRY_REPORT_RECEIVES", "all",
    "The receives whose failure is an event, besides the final one.",
    form="list of numbers", cast=cast_receives, example="1 10", default=(),
)  # fmt: skip
CHECKIN_MARGIN: Final[Setting[int | None]] = _optional(
    "SENTRY_CHECKIN_MARGIN", "Sentry's own",
    "How late a periodic task may start.",
    form="minutes", cast=_cast_count, example="5",
)  # fmt: skip
MAX_RUNTIME: Final[Setting[int | None]] = _optional(
    "SENTRY_MAX_RUNTIME", "the task's time limit",
    "How long a periodic task may run.",
    form="minutes", cast=_cast_count, example="10",
)  # fmt: skip
CRON_YAML: Final[Setting[Path | None]] = _optional(
    "SENTRY_CRON_YAML", "in the working directory, or in BASE_DIR",
    "The cron.yaml with the schedules.",
    form="path", cast=casts.path, example="/var/app/current/cron.yaml",
)  # fmt: skip

SENTRY: Final = SettingsGroup(
    prefix=_PREFIX,
    settings=(
        *_SDK_SETTINGS, REPORT_RETRIES, REPORT_RECEIVES, CHECKIN_MARGIN, MAX_RUNTIME, CRON_YAML,
    ),
    is_prefix_shared=True,
)  # fmt: skip
conf.register(SENTRY)


def get_values() -> Values:
    """Return the values of the variables, read once. A wrong value counts as not set."""
    return conf.values_of(SENTRY)


def raise_problems() -> None:
    """Raise a ConfigurationError that names every variable with a wrong value."""
    problems = get_values().problems
    if problems:
        raise ConfigurationError("; ".join(problems))
