"""The SENTRY_* variables that this room reads; the SDK itself reads more.

They are a group of their own: a wrong value counts as not set, and breaks nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch import casts, conf
from beanstalk_dispatch.conf import Setting, SettingsGroup, Values, flag
from beanstalk_dispatch.exceptions import ConfigurationError

_PREFIX: Final = "SENTRY_"
_cast_count: Final = casts.integer(1, 99_999)


def cast_dsn(value: object) -> str:
    """A DSN that the SDK can send to."""
    from sentry_sdk.utils import Dsn

    dsn = casts.string(value)
    try:
        Dsn(dsn)
    except ValueError:
        reason = "is not a DSN; copy it from Client Keys (DSN) in your Sentry project's settings"
        raise casts.InvalidValue(reason, dsn) from None
    return dsn


def cast_receives(value: object) -> tuple[int, ...]:
    """Numbers that are separated by whitespace or commas."""
    is_list = isinstance(value, list | tuple)
    items: Any = value if is_list else re.split(r"[\s,]+", str(value).strip())
    return tuple(map(_cast_count, items))


def _sdk_rate(variable: str, meaning: str, *, default_text: str) -> Setting[float | None]:
    return Setting(
        variable=variable,
        form="0 to 1",
        cast=casts.rate,
        default=None,
        default_text=default_text,
        meaning=meaning,
        example="1",
    )


def _sdk_flag(variable: str, meaning: str, *, default_text: str) -> Setting[bool | None]:
    return Setting(
        variable=variable,
        form="bool",
        cast=casts.boolean,
        default=None,
        default_text=default_text,
        meaning=meaning,
        example="True",
    )


DSN: Final[Setting[str | None]] = Setting(
    variable="SENTRY_DSN",
    form="URL",
    cast=cast_dsn,
    default=None,
    default_text="none",
    meaning="The client key (DSN) of the Sentry project to send to. Without it nothing is sent.",
    example="https://0123456789abcdef@o1.ingest.sentry.io/1",
    secret=True,
)
_ENVIRONMENT: Final[Setting[str | None]] = Setting(
    variable="SENTRY_ENVIRONMENT",
    form="string",
    cast=casts.string,
    default=None,
    default_text="production",
    meaning="The name of this environment in Sentry.",
    example="laptop",
)
_RELEASE: Final[Setting[str | None]] = Setting(
    variable="SENTRY_RELEASE",
    form="string",
    cast=casts.string,
    default=None,
    default_text="the git commit, if there is one",
    meaning="The version of your project that runs.",
    example="1.0",
)
_SHUTDOWN_TIMEOUT: Final[Setting[float | None]] = Setting(
    variable="SENTRY_SHUTDOWN_TIMEOUT",
    form="duration",
    cast=lambda value: casts.duration(value).total_seconds(),
    default=None,
    default_text="2s",
    meaning="How long the end of a process waits until its events are sent.",
    example="2s",
)
_TRANSPORT_QUEUE_SIZE: Final[Setting[int]] = Setting(
    variable="SENTRY_TRANSPORT_QUEUE_SIZE",
    form="number",
    cast=_cast_count,
    default=1000,
    default_text="1000",
    meaning="How many errors may wait to be sent. Half as many traces may wait beside them.",
    example="1000",
)

_SDK_SETTINGS: Final[tuple[Setting[Any], ...]] = (
    DSN,
    _ENVIRONMENT,
    _RELEASE,
    _sdk_rate(
        "SENTRY_TRACES_SAMPLE_RATE",
        "The share of requests and tasks that are traced.",
        default_text="no traces",
    ),
    _sdk_rate(
        "SENTRY_PROFILES_SAMPLE_RATE",
        "The share of the traced requests and tasks that are profiled.",
        default_text="no profiles",
    ),
    _sdk_rate("SENTRY_SAMPLE_RATE", "The share of errors that are sent.", default_text="1"),
    _sdk_flag(
        "SENTRY_SEND_DEFAULT_PII",
        "Send personal data, and with it the arguments of tasks.",
        default_text="False",
    ),
    _sdk_flag(
        "SENTRY_INCLUDE_LOCAL_VARIABLES",
        "Send the local variables of stack frames.",
        default_text="True",
    ),
    _sdk_flag(
        "SENTRY_ENABLE_LOGS",
        "Send log records to Sentry's Logs, those of tasks in the trace of their task.",
        default_text="False",
    ),
    _SHUTDOWN_TIMEOUT,
    _TRANSPORT_QUEUE_SIZE,
)
SDK_OPTIONS: Final = {
    setting.variable.removeprefix(_PREFIX).lower(): setting for setting in _SDK_SETTINGS
}
"""The SDK's options that variables set. Each variable has the name of its option."""

REPORT_RETRIES: Final = flag("SENTRY_REPORT_RETRIES", "Also report a failure that will be retried.")
REPORT_RECEIVES: Final[Setting[tuple[int, ...]]] = Setting(
    variable="SENTRY_REPORT_RECEIVES",
    form="list of numbers",
    cast=cast_receives,
    default=(),
    default_text="all",
    meaning="The receives of a message whose failure is an event. A final failure always is.",
    example="1 10",
)
CHECKIN_MARGIN: Final[Setting[int | None]] = Setting(
    variable="SENTRY_CHECKIN_MARGIN",
    form="minutes",
    cast=casts.minutes,
    default=None,
    default_text="Sentry's own",
    meaning="How late a periodic task may start before Sentry calls it missed.",
    example="5",
)
MAX_RUNTIME: Final[Setting[int | None]] = Setting(
    variable="SENTRY_MAX_RUNTIME",
    form="minutes",
    cast=casts.minutes,
    default=None,
    default_text="the task's time limit",
    meaning="How long a periodic task may run before Sentry calls it failed.",
    example="10",
)
CRON_YAML: Final[Setting[Path | None]] = Setting(
    variable="SENTRY_CRON_YAML",
    form="path",
    cast=casts.path,
    default=None,
    default_text="in the working directory, or in BASE_DIR",
    meaning="The cron.yaml that has the schedules of the periodic tasks.",
    example="/var/app/current/cron.yaml",
)

SENTRY: Final = SettingsGroup(
    prefix=_PREFIX,
    settings=(
        *_SDK_SETTINGS, REPORT_RETRIES, REPORT_RECEIVES, CHECKIN_MARGIN, MAX_RUNTIME, CRON_YAML,
    ),
    is_prefix_shared=True,
)  # fmt: skip
conf.register(SENTRY)


def get_values() -> Values:
    """The values of the variables, read once. A wrong value counts as not set."""
    return conf.values_of(SENTRY)


def raise_problems() -> None:
    """Raise a ConfigurationError that names every variable with a wrong value."""
    problems = get_values().problems
    if problems:
        raise ConfigurationError("; ".join(problems))
