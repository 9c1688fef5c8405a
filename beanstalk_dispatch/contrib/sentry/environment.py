"""The SENTRY_* variables that this room reads; the SDK itself reads more.

They are a group of their own: a wrong value counts as not set, and breaks nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch import casts, conf
from beanstalk_dispatch.conf import Setting, SettingsGroup, Values
from beanstalk_dispatch.exceptions import ConfigurationError


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


def cast_count(value: object) -> int:
    """A whole number from 1 to 99,999."""
    if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]{0,4}", str(value), re.ASCII):
        raise casts.InvalidValue("is not a whole number from 1 to 99999", value)
    return int(str(value))


def cast_receives(value: object) -> tuple[int, ...]:
    """Numbers that are separated by whitespace or commas."""
    is_one = isinstance(value, int)
    items: Any = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    return tuple(map(cast_count, [value] if is_one else items))


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
ENVIRONMENT: Final[Setting[str | None]] = Setting(
    variable="SENTRY_ENVIRONMENT",
    form="string",
    cast=casts.string,
    default=None,
    default_text="production",
    meaning="The name of this environment in Sentry.",
    example="laptop",
)
RELEASE: Final[Setting[str | None]] = Setting(
    variable="SENTRY_RELEASE",
    form="string",
    cast=casts.string,
    default=None,
    default_text="the git commit, if there is one",
    meaning="The version of your project that runs.",
    example="1.0",
)
TRACES_SAMPLE_RATE: Final[Setting[float | None]] = Setting(
    variable="SENTRY_TRACES_SAMPLE_RATE",
    form="0 to 1",
    cast=casts.rate,
    default=None,
    default_text="no traces",
    meaning="The share of requests and tasks that are traced.",
    example="1",
)
PROFILES_SAMPLE_RATE: Final[Setting[float | None]] = Setting(
    variable="SENTRY_PROFILES_SAMPLE_RATE",
    form="0 to 1",
    cast=casts.rate,
    default=None,
    default_text="no profiles",
    meaning="The share of the traced requests and tasks that are profiled.",
    example="1",
)
SEND_DEFAULT_PII: Final[Setting[bool | None]] = Setting(
    variable="SENTRY_SEND_DEFAULT_PII",
    form="bool",
    cast=casts.boolean,
    default=None,
    default_text="False",
    meaning="Send personal data, and with it the arguments of tasks.",
    example="True",
)
REPORT_RETRIES: Final[Setting[bool]] = Setting(
    variable="SENTRY_REPORT_RETRIES",
    form="bool",
    cast=casts.boolean,
    default=False,
    default_text="False",
    meaning="Also report a failure that will be retried.",
    example="True",
)
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

SAMPLE_RATE: Final[Setting[float | None]] = Setting(
    variable="SENTRY_SAMPLE_RATE",
    form="0 to 1",
    cast=casts.rate,
    default=None,
    default_text="1",
    meaning="The share of errors that are sent.",
    example="1",
)
INCLUDE_LOCAL_VARIABLES: Final[Setting[bool | None]] = Setting(
    variable="SENTRY_INCLUDE_LOCAL_VARIABLES",
    form="bool",
    cast=casts.boolean,
    default=None,
    default_text="True",
    meaning="Send the local variables of stack frames.",
    example="True",
)
ENABLE_LOGS: Final[Setting[bool | None]] = Setting(
    variable="SENTRY_ENABLE_LOGS",
    form="bool",
    cast=casts.boolean,
    default=None,
    default_text="False",
    meaning="Send log records to Sentry's Logs, those of tasks in the trace of their task.",
    example="True",
)
SHUTDOWN_TIMEOUT: Final[Setting[float | None]] = Setting(
    variable="SENTRY_SHUTDOWN_TIMEOUT",
    form="duration",
    cast=lambda value: casts.duration(value).total_seconds(),
    default=None,
    default_text="2s",
    meaning="How long the end of a process waits until its events are sent.",
    example="2s",
)
TRANSPORT_QUEUE_SIZE: Final[Setting[int]] = Setting(
    variable="SENTRY_TRANSPORT_QUEUE_SIZE",
    form="number",
    cast=cast_count,
    default=1000,
    default_text="1000",
    meaning="How many errors may wait to be sent. Half as many traces may wait beside them.",
    example="1000",
)

SENTRY: Final = SettingsGroup(
    prefix="SENTRY_",
    settings=(
        DSN,
        ENVIRONMENT,
        RELEASE,
        TRACES_SAMPLE_RATE,
        PROFILES_SAMPLE_RATE,
        SEND_DEFAULT_PII,
        REPORT_RETRIES,
        REPORT_RECEIVES,
        CHECKIN_MARGIN,
        MAX_RUNTIME,
        CRON_YAML,
        SAMPLE_RATE,
        INCLUDE_LOCAL_VARIABLES,
        ENABLE_LOGS,
        SHUTDOWN_TIMEOUT,
        TRANSPORT_QUEUE_SIZE,
    ),
    is_prefix_shared=True,
)
conf.register(SENTRY)

OPTIONS: Final[Mapping[str, Setting[Any]]] = {
    "dsn": DSN,
    "environment": ENVIRONMENT,
    "release": RELEASE,
    "sample_rate": SAMPLE_RATE,
    "traces_sample_rate": TRACES_SAMPLE_RATE,
    "profiles_sample_rate": PROFILES_SAMPLE_RATE,
    "send_default_pii": SEND_DEFAULT_PII,
    "include_local_variables": INCLUDE_LOCAL_VARIABLES,
    "enable_logs": ENABLE_LOGS,
    "shutdown_timeout": SHUTDOWN_TIMEOUT,
    "transport_queue_size": TRANSPORT_QUEUE_SIZE,
}
"""The SDK's options that variables set."""


def get_values() -> Values:
    """The values of the variables, read once. A wrong value counts as not set."""
    return conf.values_of(SENTRY)


def raise_problems() -> None:
    """Raise a ConfigurationError that names every variable with a wrong value."""
    problems = get_values().problems
    if problems:
        raise ConfigurationError("; ".join(problems))
