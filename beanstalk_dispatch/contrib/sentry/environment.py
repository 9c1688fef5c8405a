"""The SENTRY_* variables; the SDK itself reads more."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from beanstalk_dispatch import conf
from beanstalk_dispatch.exceptions import ConfigurationError


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 1:
        raise ValueError(f"{text!r} is not a rate; write a number from 0 to 1")
    return rate


def _minutes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text)):
        raise ValueError(f"{text!r} is not a number of minutes; write 1 to 99999")
    return int(text)


@dataclass(frozen=True, slots=True)
class Variable:
    """``cast`` raises a ValueError that says what is accepted; the rest is for people."""

    cast: Callable[[str], Any]
    form: str
    default: str
    meaning: str


VARIABLES: Final[Mapping[str, Variable]] = {
    "SENTRY_DSN": Variable(
        str, "URL", "none", "Where events go: the project's client key. Without it nothing is sent."
    ),
    "SENTRY_ENVIRONMENT": Variable(
        str, "text", "production", "What Sentry calls this environment. Read by the SDK itself."
    ),
    "SENTRY_RELEASE": Variable(
        str, "text", "the git commit, if any", "The version that runs. Read by the SDK itself."
    ),
    "SENTRY_TRACES_SAMPLE_RATE": Variable(
        _rate, "0 to 1", "no traces", "The share of requests and tasks that are traced."
    ),
    "SENTRY_PROFILES_SAMPLE_RATE": Variable(
        _rate, "0 to 1", "no profiles", "The share of traced ones that are profiled."
    ),
    "SENTRY_SEND_DEFAULT_PII": Variable(
        conf.cast_bool, "bool", "False", "Send personal data, and with it the arguments of tasks."
    ),
    "SENTRY_REPORT_RETRIES": Variable(
        conf.cast_bool, "bool", "False", "Report a failure that will be retried, too."
    ),
    "SENTRY_CHECKIN_MARGIN": Variable(
        _minutes, "minutes", "Sentry's own", "How late a periodic task may start."
    ),
    "SENTRY_MAX_RUNTIME": Variable(
        _minutes, "minutes", "the task's time limit", "How long a periodic task may run."
    ),
    "SENTRY_CRON_YAML": Variable(
        Path,
        "path",
        "in the working directory, or in BASE_DIR",
        "The cron.yaml with the schedules.",
    ),
}


def variable(name: str) -> Any:
    """The value of a variable; None if it is unset, empty, or wrong, which ``check`` tells."""
    try:
        return _read(name)
    except ValueError:
        return None


def check() -> None:
    """Raise a ConfigurationError that names every variable with a wrong value."""
    faults = []
    for name in VARIABLES:
        try:
            _read(name)
        except ValueError as exc:
            faults.append(f"{name}: {exc}")
    if faults:
        raise ConfigurationError("; ".join(faults))


def _read(name: str) -> Any:
    text = os.environ.get(name, "").strip()
    return VARIABLES[name].cast(text) if text else None
