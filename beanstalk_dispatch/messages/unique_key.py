"""The key of a task of which one message waits at a time: an entry in the lease's cache.

Its value is the id of the task that holds it, so that only this task frees it. Each entry has a
time to live. A cache that does not answer costs uniqueness, and not the message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.logging.throttle import THROTTLE

from .message import Message
from .shared_cache import cache_key, cache_of

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

    def take(cache: Any, key: str) -> str | None:
        for _ in range(_TRIES):
            if cache.add(key, message.id, seconds):
                return None
            if (holder := cache.get(key)) is not None:  # it was freed between the two
                return None if holder == message.id else str(holder)
        return None

    return _with_cache(message, config, take)


def confirm(message: Message, config: Config) -> None:
    """Keep the key for its own time, because SQS has the message.

    ``touch`` makes no entry, so a worker that has been faster, and has freed the key, has the last
    word.
    """
    seconds = message.unique["for"]
    _with_cache(message, config, lambda cache, key: cache.touch(key, seconds))


def free(message: Message, config: Config) -> None:
    """Free the key, if the message holds it."""

    def give_up(cache: Any, key: str) -> None:
        if cache.get(key) == message.id:
            cache.delete(key)

    _with_cache(message, config, give_up)


def _with_cache(
    message: Message, config: Config, action: Callable[[Any, str], str | None]
) -> str | None:
    """Call ``action`` with the cache and the key. Log an error of the cache, once a minute."""
    if config.lease_cache is None:
        return None
    key = cache_key("unique", f"{message.function}\n{message.unique['key']}")
    try:
        return action(cache_of(config.lease_cache), key)
    except Exception as exc:
        if (repeated := THROTTLE.repeated("unique")) is not None:
            logger.warning(
                "key not unique id=%s function=%s cache=%s%s error=%s",
                quoted(message.id), quoted(message.function), config.lease_cache, repeated,
                quoted_error(exc, with_type=True),
            )  # fmt: skip
        return None
