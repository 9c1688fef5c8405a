"""A cache that all processes share: its keys, and the error if it does not answer."""

from __future__ import annotations

import hashlib
from typing import Any

from django.core.cache import caches

from beanstalk_dispatch.conf import Setting
from beanstalk_dispatch.conf.variables import LEASE_CACHE
from beanstalk_dispatch.exceptions import ConfigurationError, LeaseUnavailable


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


def unavailable_error(alias: str, exc: Exception) -> LeaseUnavailable:
    """Return the error to raise if a cache does not answer."""
    return LeaseUnavailable(f"{type(exc).__name__} of cache {alias!r}")
