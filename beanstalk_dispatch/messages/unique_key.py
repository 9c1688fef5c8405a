"""The key of a task of which one message waits at a time: an entry in the lease's cache.

Its value is the id of the task that holds it, so that only this task frees it. Each entry has a
time to live. A cache that does not answer costs uniqueness, and not the message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from beanstalk_dispatch.conf import Config

from .message import Message
from .shared_cache import SharedCache, cache_key, errors_logged

logger = logging.getLogger("beanstalk_dispatch.task")

_PENDING_SECONDS: Final = 5.0
"""The seconds beyond the timeout of a send for which a key is held that no message has yet."""
_TRIES: Final = 3


def claim(message: Message, config: Config) -> str | None:
    """Take the key for a message that is about to be sent. Return the id of its holder if it fails.

    The key is only pending. A process that is killed before SQS has the message loses no call that
    comes later.
    """
    seconds = config.send_timeout.total_seconds() + _PENDING_SECONDS

    def take(shared: SharedCache, key: str) -> str | None:
        for _ in range(_TRIES):
            taken, found = shared.take([key], message.id, seconds)
            if taken:
                return None
            if (holder := found.get(key)) is not None:  # it was freed between the two
                return None if holder == message.id else str(holder)
        return None

    return _with_cache(message, config, take)


def confirm(message: Message, config: Config) -> None:
    """Keep the key for its own time, because SQS has the message.

    ``touch`` makes no entry, so a worker that has been faster, and has freed the key, has the last
    word.
    """
    seconds = message.unique["for"]
    _with_cache(message, config, lambda shared, key: shared.cache.touch(key, seconds))


def free(message: Message, config: Config) -> None:
    """Free the key, if the message holds it."""
    _with_cache(message, config, lambda shared, key: shared.free(key, message.id))


def _with_cache(
    message: Message, config: Config, action: Callable[[SharedCache, str], str | None]
) -> str | None:
    """Call ``action`` with the cache and the key. Log an error of the cache, once a minute."""
    if config.lease_cache is None:
        return None
    key = cache_key("unique", f"{message.function}\n{message.unique['key']}")
    with errors_logged(
        logger, "key not unique id=%s function=%s cache=%s",
        message.id, message.function, config.lease_cache,
    ):  # fmt: skip
        return action(SharedCache(config.lease_cache), key)
    return None
