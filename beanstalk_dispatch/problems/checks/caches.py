"""Checks that the caches of the lease and of the results are of a kind that workers can share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import SETTINGS, Config
from beanstalk_dispatch.conf.variables import LEASE_CACHE, RESULTS
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.messages.shared_cache import cache_of

from .registry import ID, on_every_machine, on_workers

_LIBRARIES: Final = {
    "PyLibMCCache": "pylibmc",
    "PyMemcacheCache": "pymemcache",
    "RedisCache": "redis",
}
"""The backends of Django that import their library at the first use → the library."""
MIN_LEASE_ENTRIES: Final = 100_000
_UNSHARED_CACHES: Final = ("LocMemCache", "DummyCache", "FileBasedCache")
_ATOMIC_CACHES: Final = (
    "django.core.cache.backends.redis",
    "django.core.cache.backends.memcached",
    "django.core.cache.backends.db",
    "django_redis.",
    "django_valkey.",
)
"""The modules of caches whose ``add`` is atomic."""


@on_workers
def _small_lease_cache(config: Config) -> Iterator[CheckMessage]:
    alias, cache = config.lease_cache, _cache(config.lease_cache)
    if _is_of_backend(cache, "DatabaseCache") and _max_entries(cache) < MIN_LEASE_ENTRIES:
        yield checks.Error(
            f"{LEASE_CACHE.variable}: the cache {alias!r} keeps "
            f"{_max_entries(cache):,} entries and deletes the others. A task whose entry is "
            "deleted can run again.",
            hint=f"CACHES = {{{alias!r}: {{..., 'OPTIONS': {{'MAX_ENTRIES': 10_000_000}}}}}}",
            id=f"{ID}.E004",
        )


@on_workers
def _unshared_lease_cache(config: Config) -> Iterator[CheckMessage]:
    alias = config.lease_cache
    if alias is not None and (problem := _why_not_shared(alias)):
        yield checks.Error(
            f"{LEASE_CACHE.variable}: {alias!r} {problem}.",
            hint="Name a cache in Redis, Memcached or the database.",
            id=f"{ID}.E006",
        )


@on_every_machine
def _unshared_results_cache(config: Config) -> Iterator[CheckMessage]:
    alias = config.results
    if alias is None or alias == "db" or config.execute_synchronously:
        return
    if problem := _why_not_shared(alias):
        yield checks.Error(
            f"{RESULTS.variable}: {alias!r} {problem}.",
            hint="Name a cache in Redis, Memcached or the database, or db.",
            id=f"{ID}.E013",
        )


@on_every_machine
def _cache_without_library(config: Config) -> Iterator[CheckMessage]:
    for field in ("lease_cache", "results"):
        alias = getattr(config, field)
        backend = str(_cache(alias).get("BACKEND", "")).rpartition(".")[2]
        library = _LIBRARIES.get(backend)
        if library and find_spec(library) is None:
            yield checks.Error(
                f"{SETTINGS[field].variable}: the cache {alias!r} needs the package {library!r}, "
                "which is not installed.",
                hint=f"Add {library} to requirements.txt: pip install {library}",
                id=f"{ID}.E023",
            )


@on_workers
def _cache_without_timeout(config: Config) -> Iterator[CheckMessage]:
    for field in ("lease_cache", "results"):
        alias = getattr(config, field)
        cache = _cache(alias)
        if _is_of_backend(cache, "RedisCache") and "socket_timeout" not in cache.get("OPTIONS", {}):
            yield checks.Warning(
                f"{SETTINGS[field].variable}: the cache {alias!r} has no socket_timeout. A "
                "Redis that hangs would hang every thread of the worker.",
                hint=f"CACHES = {{{alias!r}: {{..., 'OPTIONS': {{'socket_timeout': 5}}}}}}",
                id=f"{ID}.W012",
            )


@on_workers
def _lease_cache_without_atomic_add(config: Config) -> Iterator[CheckMessage]:
    alias = config.lease_cache
    if alias is None or _why_not_shared(alias) or _has_atomic_add(alias):
        return
    yield checks.Warning(
        f"{LEASE_CACHE.variable}: it is not known whether add() of the cache {alias!r}, a "
        f"{_cache(alias)['BACKEND']}, is atomic. If it is not, two workers that receive the same "
        "message at the same time both run it.",
        hint="Name a cache in Redis, Memcached or the database. If add() of this one is atomic, "
        "silence the check with SILENCED_SYSTEM_CHECKS.",
        id=f"{ID}.W022",
    )


def _cache(alias: str | None) -> Mapping[str, Any]:
    """Return the entry of a cache in CACHES; empty if there is none."""
    entry: Mapping[str, Any] = settings.CACHES.get(alias or "", {})
    return entry


def _is_of_backend(cache: Mapping[str, Any], name: str) -> bool:
    return str(cache.get("BACKEND", "")).endswith(f".{name}")


def _why_not_shared(alias: str) -> str | None:
    """Return the reason why processes cannot share this cache."""
    backend = _cache(alias).get("BACKEND", "")
    if not backend:
        return f"is not in CACHES; known: {joined(settings.CACHES)}"
    if backend.endswith(_UNSHARED_CACHES):
        return f"is a {backend.rpartition('.')[2]}, which the worker processes do not share"
    return None


def _has_atomic_add(alias: str) -> bool:
    """Return True if the class that defines the cache's ``add`` is known to do so atomically.

    A cache that cannot be made has other problems, which its use shows.
    """
    try:
        cache = type(cache_of(alias))
    except ConfigurationError:
        return True
    definer = next(each for each in cache.__mro__ if "add" in vars(each))
    return definer.__module__.startswith(_ATOMIC_CACHES)


def _max_entries(cache: Mapping[str, Any]) -> int:
    """Return the cache's MAX_ENTRIES, as django.core.cache.backends.base.BaseCache reads it."""
    return int(cache.get("max_entries", cache.get("OPTIONS", {}).get("MAX_ENTRIES", 300)))
