"""The options of a SafeTask: read from its attributes, or sent in a message."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple, TypeGuard, cast

from beanstalk_dispatch.conf import casts, get_config
from beanstalk_dispatch.exceptions import InvalidCall, MalformedMessage
from beanstalk_dispatch.safe_task import ISOLATIONS, TRAVELLING_OPTIONS, SafeTask

_MAX_ERROR_LENGTH: Final = 200  # characters; the value of a received option may be a megabyte
_MAX_SECONDS: Final = 2**31
MAX_RECEIVED_RETRIES: Final = 100
"""The number of retries that a message may ask for. A class may allow more."""
MIN_RECEIVED_BACKOFF: Final = 1.0
"""The shortest ``retry_backoff`` that a message may ask for, in seconds.

A class may have less.
"""


class _TravellingOption(NamedTuple):
    wire_name: str
    """The option's name in a message."""
    cast: Callable[[Any], Any]
    """The function that makes the value of a given or received one. It raises ValueError."""
    to_json: Callable[[Any], Any]


def seconds_of(duration: timedelta | float) -> float:
    """Return a timedelta, or a number of seconds, in seconds.

    Raise TypeError or ValueError if it is neither.
    """
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def is_duration(value: object) -> TypeGuard[timedelta | float]:
    """Return True for a timedelta, or a number of seconds."""
    return isinstance(value, int | float | timedelta) and not isinstance(value, bool)


def is_positive_duration(value: object) -> TypeGuard[timedelta | float]:
    """Return True for a timedelta, or a number of seconds, above zero."""
    return is_duration(value) and seconds_of(value) > 0


def time_limit_of(task: SafeTask) -> float:
    """Return the time limit of ``run``, in seconds.

    Raise any exception that comes from a wrong ``timeout_timedelta``.
    """
    if (limit := task.timeout_timedelta) is None:
        return get_config().task_timeout.total_seconds()
    return seconds_of(limit)


def options_to_send(task: SafeTask) -> dict[str, Any]:
    """Return the options that were set on the instance, in the form they have in a message.

    Raise InvalidCall if an option has a wrong value.
    """
    own, options = vars(task), {}
    for name in TRAVELLING_OPTIONS:
        if name in own and own[name] is not None:
            option = _OPTIONS[name]
            try:
                options[option.wire_name] = option.to_json(option.cast(own[name]))
            except ValueError as exc:
                raise InvalidCall(f"option {name}: {exc}") from None
    return options


def apply_received_options(task: SafeTask, received: Mapping[str, Any]) -> None:
    """Set the options of a message on the instance. Unknown ones are ignored.

    Raise MalformedMessage if an option has a wrong value.
    """
    own_backoff = task.retry_backoff
    for name, option in _OPTIONS.items():
        if option.wire_name in received:
            try:
                setattr(task, name, option.cast(received[option.wire_name]))
            except (ValueError, RecursionError) as exc:
                reason = f"option {option.wire_name}: {exc}"
                raise MalformedMessage(reason[:_MAX_ERROR_LENGTH]) from None
    # Without signing keys anyone who may send to the queue writes these options.
    if "max_retries" in received and task.max_retries is not None:
        task.max_retries = min(task.max_retries, MAX_RECEIVED_RETRIES)
    if "retry_backoff" in received:
        least = MIN_RECEIVED_BACKOFF
        if not callable(own_backoff):
            least = min(seconds_of(own_backoff), least)
        asked = cast("timedelta", task.retry_backoff)
        task.retry_backoff = max(seconds_of(asked), least)


def _cast_timeout(value: object) -> timedelta:
    """Return a timedelta from seconds, a timedelta, or a string like ``5m``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is not a duration")
        value = timedelta(seconds=min(max(value, -1), _MAX_SECONDS))
    return casts.duration(value)


def _cast_backoff(value: object) -> timedelta:
    zero = timedelta(0)
    return zero if value in (0, zero) and value is not False else _cast_timeout(value)


def _cast_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def _cast_count(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{value!r} is not a count")
    return value


_OPTIONS: Final[Mapping[str, _TravellingOption]] = {
    "timeout_timedelta": _TravellingOption("timeout", _cast_timeout, seconds_of),
    "verbose": _TravellingOption("verbose", _cast_bool, bool),
    "max_retries": _TravellingOption("max_retries", _cast_count, _cast_count),
    "retry_backoff": _TravellingOption("retry_backoff", _cast_backoff, seconds_of),
}


def problems_of_options(task_class: type[SafeTask]) -> list[str]:
    """Return the problems of the options that a class sets, in words."""
    problems = []
    for name, option in _OPTIONS.items():
        value = getattr(task_class, name)
        is_function = name == "retry_backoff" and callable(value)
        if value is None or isinstance(value, property) or is_function:
            continue
        try:
            if name in {"timeout_timedelta", "retry_backoff"} and isinstance(value, str):
                raise ValueError(f"{value!r} is a string; write a timedelta or seconds")
            option.cast(value)
        except ValueError as exc:
            problems.append(f"{name}: {exc}")
    if task_class.isolation not in (None, *ISOLATIONS):
        problems.append(f"isolation: {task_class.isolation!r} is not {' or '.join(ISOLATIONS)}")
    expires = task_class.expires_after
    if expires is not None and not is_positive_duration(expires):
        problems.append(f"expires_after: {expires!r} is not seconds or a timedelta above 0")
    return problems


def limit_key(function: str, given: Mapping[str, Any], by: Sequence[str]) -> str:
    """Return the name under which a task is limited, for these values of its arguments."""
    values = [given.get(each) for each in by]
    return "\n".join((function, json.dumps(values, sort_keys=True, default=str)))
