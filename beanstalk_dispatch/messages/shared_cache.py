"""A cache that all processes share: its keys, its requests, and the error if it does not answer.

An entry that a run owns is taken, renewed, replaced and freed here, by the value that its owner has
given it. Django's Redis cache does in one round trip what others do in several.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, NamedTuple

from django.core.cache import caches

from beanstalk_dispatch.conf import Setting
from beanstalk_dispatch.conf.variables import LEASE_CACHE
from beanstalk_dispatch.exceptions import ConfigurationError, LeaseUnavailable
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.logging.throttle import THROTTLE

from .redis_scripts import RedisScripts, scripts_of

_CLAIM_SECONDS: Final = 10
"""The seconds for one process to replace the entry of an owner that does not run."""


class CacheEntry(NamedTuple):
    """An entry to be written."""

    key: str
    value: Any
    seconds: float


class Announcement(NamedTuple):
    """An entry that is written only if another one was taken, and none of ``unless`` exists."""

    entry: CacheEntry
    unless: Sequence[str]


class Taken(NamedTuple):
    """The answer of a cache that was asked for one of several entries."""

    key: str
    """The key of the entry that was taken; empty if all are taken."""
    found: Mapping[str, Any]
    """The other entries that were read, and if none was taken, those of their owners."""


def cache_of(alias: str, setting: Setting[Any] = LEASE_CACHE) -> Any:
    """Return this thread's connection to the cache that ``setting`` names, by default the lease's.

    Raise ConfigurationError if there is no such cache.
    """
    try:
        return caches[alias]
    except Exception as exc:  # no such cache, or its library is not installed
        raise ConfigurationError(f"{setting.variable}: cache {alias!r}: {exc}") from exc


def cache_key(kind: str, name: str) -> str:
    """Return the key of an entry about ``name``, which may be any string."""
    digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()
    return f"beanstalk_dispatch.{kind}.{digest}"


class SharedCache:
    """This thread's connection to a shared cache. Its methods raise the cache's own errors."""

    def __init__(self, alias: str) -> None:
        self.cache = cache_of(alias)
        try:
            self._scripts: RedisScripts | None = scripts_of(self.cache)
        except ImportError as exc:  # Django imports the cache's library at its first use
            raise _unavailable(alias, exc) from exc

    def take(
        self,
        keys: Sequence[str],
        value: object,
        seconds: float,
        *,
        reads: Sequence[str] = (),
        announcement: Announcement | None = None,
    ) -> Taken:
        """Add ``value`` under the first of ``keys`` that is free, and then read ``reads``.

        A key that was added is freed if the cache does not answer the rest.
        """
        if self._scripts is not None:
            return Taken(*self._scripts.take(keys, value, seconds, reads, announcement))
        cache, found = self.cache, {}
        if len(keys) > 1:  # one look costs less than many tries
            found = cache.get_many([*keys, *reads])
        free = (each for each in keys if each not in found)
        key = next((each for each in free if cache.add(each, value, seconds)), "")
        try:
            if len(keys) == 1 and (wanted := reads if key else [*reads, *keys]):
                found = cache.get_many(wanted)
            if key and announcement and not any(each in found for each in announcement.unless):
                cache.set(*announcement.entry)
        except Exception:
            with suppress(Exception):
                self.free(key, value)
            raise
        return Taken(key, found)

    def write(self, *entries: CacheEntry, freed: tuple[str, object] | None = None) -> None:
        """Set entries, and then free the key of ``freed`` if it has the value."""
        if self._scripts is not None:
            self._scripts.write(entries, freed)
            return
        for each in entries:
            self.cache.set(*each)
        if freed and self.cache.get(freed[0]) == freed[1]:
            self.cache.delete(freed[0])

    def free(self, key: str, value: object) -> None:
        """Free a key if it has this value."""
        self.write(freed=(key, value))

    def renew(self, key: str, value: object, seconds: float) -> bool:
        """Let a key last for ``seconds`` from now. Return False if it does not have this value.

        ``touch`` changes no value. So if another process has taken the key, because this one was
        suspended, the entry stays that of the other process.
        """
        return bool(self.cache.get(key) == value and self.cache.touch(key, seconds))

    def replace(self, key: str, old: Any, value: object, seconds: float) -> bool:
        """Replace the entry of an owner that does not run. Return False if it has changed.

        Several processes may try. The claim is for this owner's entry, so only one of them can add
        it. ``touch`` keeps the entry from ending before it is replaced.
        """
        claim = cache_key("claim", f"{key} {old}")
        return bool(
            self.cache.add(claim, 1, _CLAIM_SECONDS)
            and self.renew(key, old, seconds)
            and self.cache.set(key, value, seconds) is None
        )


@contextmanager
def required(alias: str) -> Iterator[SharedCache]:
    """Make each error of a cache a LeaseUnavailable."""
    shared = SharedCache(alias)
    try:
        yield shared
    except Exception as exc:
        raise _unavailable(alias, exc) from exc


def _unavailable(alias: str, exc: Exception) -> LeaseUnavailable:
    """Return the error of a cache that does not answer. A missing library holds no secret."""
    library = f": {exc}" if isinstance(exc, ImportError) else ""
    return LeaseUnavailable(f"{type(exc).__name__} of cache {alias!r}{library}")


class errors_logged:  # noqa: N801 - a context manager
    """A block in which an error of a cache is logged, once a minute for each kind of line.

    A value may be a function, which is called when the line is logged.
    """

    def __init__(
        self, logger: logging.Logger, line: str, *values: Any, level: int = logging.WARNING
    ) -> None:
        self._logger, self._line, self._values, self._level = logger, line, values, level

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> bool:
        if not isinstance(exc, Exception):
            return False
        if (repeated := THROTTLE.repeated(self._line)) is not None:
            values = (quoted(each() if callable(each) else each) for each in self._values)
            error = quoted_error(exc, with_type=True)
            self._logger.log(self._level, f"{self._line}%s error=%s", *values, repeated, error)  # noqa: G004
        return True
