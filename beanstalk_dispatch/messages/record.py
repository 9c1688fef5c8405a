"""Entries that people set in the lease's cache: a task is cancelled, a queue is paused."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.variables import ISOLATION, LEASE_CACHE
from beanstalk_dispatch.exceptions import ConfigurationError, InvalidCall, LeaseUnavailable

from .message import NAME_FORM, is_name
from .shared_cache import cache_key, cache_of, errors_logged, required

logger = logging.getLogger("beanstalk_dispatch.task")

CANCELLED_SECONDS: Final = 15 * 86400
"""The seconds that a task stays cancelled: a day longer than SQS keeps a message.

Each copy of a message, such as a retry or a hop, is checked when it arrives. So the entry has to
outlast one copy only: the copy on the queue now, or the one that the running attempt will send.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""


STOP_SECONDS: Final = 3600
"""The seconds for which a task is asked to end. Each parent of a child asks every two seconds."""


def cancelled_key(task_id: str) -> str:
    """Return the key of the entry that cancels a task."""
    return cache_key("cancelled", task_id)


def paused_key(queue_name: str) -> str:
    """Return the key of the entry that pauses the queue with this own name."""
    return cache_key("paused", queue_name)


# --- tasks -----------------------------------------------------------------------------------


def cancel(task_id: str) -> None:
    """Cancel a task for all workers, by an entry in the lease's cache.

    Raise InvalidCall if the id is not a task id, ConfigurationError if no such cache is configured,
    LeaseUnavailable if it does not answer.
    """
    if not (isinstance(task_id, str) and is_name(task_id)):
        raise InvalidCall(f"a task id is {NAME_FORM}, not {task_id!r:.100}")
    alias = _cache_alias("a task is cancelled")
    _keep_time(alias, cancelled_key(task_id), CANCELLED_SECONDS)


def is_cancelled(task_id: str, config: Config) -> bool:
    """Return True if a task is cancelled. Log an error of the cache and return False."""
    if config.lease_cache is None:
        return False
    with errors_logged(
        logger, "not known whether cancelled id=%s cache=%s", task_id, config.lease_cache
    ):
        return cache_of(config.lease_cache).get(cancelled_key(task_id)) is not None
    return False


def stop(task_id: str) -> None:
    """Cancel a task, and ask for its end if it runs in a process of its own.

    Raise as ``cancel`` does, and ConfigurationError if tasks run in threads.
    """
    if get_config().isolation == "thread":
        raise ConfigurationError(
            f"{ISOLATION.variable} is thread here: a running task can be stopped only in a process "
            "of its own, and otherwise be cancelled only"
        )
    cancel(task_id)
    alias = _cache_alias("a task is stopped")
    _keep_time(alias, _stop_key(task_id), STOP_SECONDS)


def to_be_stopped(task_ids: Sequence[str], config: Config) -> frozenset[str]:
    """Return those tasks that are to be stopped.

    Return none, and log a warning, if the cache does not answer.
    """
    if config.lease_cache is None:
        return frozenset()
    keys = {_stop_key(each): each for each in task_ids}
    with errors_logged(logger, "not known whether stopped cache=%s", config.lease_cache):
        found = cache_of(config.lease_cache).get_many(list(keys))
        return frozenset(keys[each] for each in found)
    return frozenset()


def _stop_key(task_id: str) -> str:
    return cache_key("stop", task_id)


# --- queues ----------------------------------------------------------------------------------


def pause(queue_name: str) -> None:
    """Pause the queue with this own name until ``resume``.

    Raise ConfigurationError if no cache is configured, LeaseUnavailable if it does not answer.
    """
    _keep_time(_cache_alias("a queue is paused"), paused_key(queue_name), None)


def resume(queue_name: str) -> bool:
    """Resume the queue with this own name. Return True if it was paused.

    Raise ConfigurationError if no cache is configured, LeaseUnavailable if it does not answer.
    """
    with required(_cache_alias("a queue is paused")) as shared:
        return bool(shared.cache.delete(paused_key(queue_name)))


def paused_since(queue_names: Iterable[str], config: Config) -> Mapping[str, float]:
    """Return the Unix seconds at which each paused queue among these was paused, by its name.

    Raise ConfigurationError if the cache does not exist, LeaseUnavailable if it does not
    answer.
    """
    if config.lease_cache is None:
        return {}
    names = {paused_key(each): each for each in queue_names}
    with required(config.lease_cache) as shared:
        found = shared.cache.get_many(list(names))
    return {names[key]: since for key, since in found.items()}


# --- the cache -------------------------------------------------------------------------------


def _cache_alias(purpose: str) -> str:
    alias = get_config().lease_cache
    if alias is None:
        variable = LEASE_CACHE.variable
        raise ConfigurationError(
            f"{variable} is not set: {purpose} by an entry in that cache, which all workers share"
        )
    return alias


def _keep_time(alias: str, key: str, seconds: float | None) -> None:
    """Keep the present time under a key, unless one is kept. Raise LeaseUnavailable if not."""
    with required(alias) as shared:
        shared.cache.add(key, time.time(), seconds)
        is_kept = shared.cache.get(key) is not None
    if not is_kept:
        raise LeaseUnavailable(f"cache {alias!r} does not keep what is added to it")
