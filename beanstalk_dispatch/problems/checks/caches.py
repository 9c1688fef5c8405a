"""Checks that the caches of the lease and of the results are of a kind that workers can share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import SETTINGS, Config
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.messages.shared_cache import cache_of
from beanstalk_dispatch.problems.findings import problem

from .registry import on_every_machine, on_workers

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
        yield problem("E004", alias=alias, entries=_max_entries(cache))


@on_workers
def _unshared_lease_cache(config: Config) -> Iterator[CheckMessage]:
    alias = config.lease_cache
    if alias is not None and (reason := _why_not_shared(alias)):
        yield problem("E006", alias=alias, reason=reason)


@on_every_machine
def _unshared_results_cache(config: Config) -> Iterator[CheckMessage]:
    alias = config.results
    if alias is None or alias == "db" or config.execute_synchronously:
        return
    if reason := _why_not_shared(alias):
        yield problem("E013", alias=alias, reason=reason)


@on_every_machine
def _cache_without_library(config: Config) -> Iterator[CheckMessage]:
    for field in ("lease_cache", "results"):
        alias = getattr(config, field)
        backend = str(_cache(alias).get("BACKEND", "")).rpartition(".")[2]
        library = _LIBRARIES.get(backend)
        if library and find_spec(library) is None:
            yield problem("E023", variable=SETTINGS[field].variable, alias=alias, library=library)


@on_workers
def _cache_without_timeout(config: Config) -> Iterator[CheckMessage]:
    for field in ("lease_cache", "results"):
        alias = getattr(config, field)
        cache = _cache(alias)
        if _is_of_backend(cache, "RedisCache") and not _has_timeout(cache):
            yield problem("W012", variable=SETTINGS[field].variable, alias=alias)


@on_workers
def _lease_cache_without_atomic_add(config: Config) -> Iterator[CheckMessage]:
    alias = config.lease_cache
    if alias is None or _why_not_shared(alias) or _has_atomic_add(alias):
        return
    yield problem("W022", alias=alias, backend=_cache(alias)["BACKEND"])


def _cache(alias: str | None) -> Mapping[str, Any]:
    """Return the entry of a cache in CACHES; empty if there is none."""
    entry: Mapping[str, Any] = settings.CACHES.get(alias or "", {})
    return entry


def _has_timeout(cache: Mapping[str, Any]) -> bool:
    """Return True if an option or the URL has the timeout; django-redis writes it in capitals."""
    return "socket_timeout" in f"{cache.get('OPTIONS')} {cache.get('LOCATION')}".lower()


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
