"""The SENTRY_* variables that are read here; the SDK itself reads more."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
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
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{text!r} is not a number of minutes; write 1 or more")
    return int(text)


VARIABLES: Final[Mapping[str, Callable[[str], Any]]] = {
    "SENTRY_DSN": str,
    "SENTRY_TRACES_SAMPLE_RATE": _rate,
    "SENTRY_PROFILES_SAMPLE_RATE": _rate,
    "SENTRY_SEND_DEFAULT_PII": conf.cast_bool,
    "SENTRY_REPORT_RETRIES": conf.cast_bool,
    "SENTRY_CHECKIN_MARGIN": _minutes,
    "SENTRY_MAX_RUNTIME": _minutes,
    "SENTRY_CRON_YAML": Path,
}
"""Variable → its cast, which raises a ValueError that says what is accepted."""


def variable(name: str) -> Any:
    """The value of a variable; None if it is unset or empty. Raises ConfigurationError."""
    text = os.environ.get(name, "").strip()
    try:
        return VARIABLES[name](text) if text else None
    except ValueError as exc:
        raise ConfigurationError(f"{name}: {exc}") from None
