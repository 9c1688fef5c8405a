"""The keys of a call: that by which it is unique, and that by which its task is limited."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import LEASE_CACHE, MESSAGE_FORMAT
from beanstalk_dispatch.exceptions import ConfigurationError, InvalidCall
from beanstalk_dispatch.messages.message import NAME_FORM, is_name
from beanstalk_dispatch.running.definitions.dispatch_table import entry
from beanstalk_dispatch.running.definitions.entries import arguments_of
from beanstalk_dispatch.running.definitions.options import is_duration, limit_key, seconds_of

from .call import Call

DEFAULT_SECONDS: Final = 3600.0
"""The seconds for which a key is held at most, after the moment at which the task is due."""
_UNTIL: Final = ("start", "end")


def unique_of(call: Call, name: str, delay: float, config: Config) -> dict[str, Any]:
    """Return the member ``unique`` of a call's message; it is empty for other calls.

    Raise InvalidCall, or ConfigurationError if there is no cache for keys.
    """
    policy = config.policy(name)
    if call.unique is not None:
        key = call.unique
    elif "unique_by" in policy:
        key = _key_of(call, name, policy["unique_by"], config)
    else:
        return {}
    _check(key, name, config)
    seconds = policy.get("unique_for", DEFAULT_SECONDS)
    seconds = _seconds(seconds if call.unique_for is None else call.unique_for)
    until = call.unique_until or policy.get("unique_until", "start")
    if until not in _UNTIL:
        raise InvalidCall(f"unique_until is {until!r}; expected {' or '.join(_UNTIL)}")
    ends_late = {"until": "end"} if until == "end" else {}
    return {"key": key, "for": round(seconds + delay, 3), **ends_late}


def _check(key: object, name: str, config: Config) -> None:
    if not (isinstance(key, str) and is_name(key)):
        raise InvalidCall(f"unique {key!r:.100} is not {NAME_FORM}")
    if config.sends_base64:
        raise InvalidCall(f"{name}: unique needs {MESSAGE_FORMAT.variable}=json")
    if config.lease_cache is None:
        raise ConfigurationError(
            f"{LEASE_CACHE.variable} is not set: a task is unique by an entry in that cache, which "
            "web and worker tier share"
        )


def _seconds(duration: object) -> float:
    seconds = seconds_of(duration) if is_duration(duration) else 0.0
    if 0 < seconds < 2**31:
        return seconds
    raise InvalidCall(f"unique_for {duration!r} is not a number of seconds or a timedelta above 0")


def _key_of(call: Call, name: str, by: Sequence[str], config: Config) -> str:
    """Return a key of the arguments with these names."""
    given = _arguments(call, name, config)
    if missing := [each for each in by if each not in given]:
        raise InvalidCall(f"{name}: unique_by names {missing[0]!r}, which the call does not have")
    text = json.dumps([given[each] for each in by], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def fair_group_of(call: Call, name: str, config: Config) -> str | None:
    """Return the message group of a call whose task is limited by an argument; None for others.

    With such groups SQS is fair: the tasks of one account do not delay those of the others. A
    group shows no argument.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
    """
    if not (by := config.policy(name).get("limit_by")):
        return None
    key = limit_key(name, _arguments(call, name, config), by)
    return hashlib.sha256(key.encode()).hexdigest()


def _arguments(call: Call, name: str, config: Config) -> Mapping[str, Any]:
    """Return the arguments of a call by their names, as far as this process knows these."""
    try:
        return arguments_of(entry(name, config), call.args, call.kwargs)
    except (Exception, SystemExit):  # it cannot be imported here
        return call.kwargs
