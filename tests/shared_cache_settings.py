"""The settings of processes that share one cache: in Valkey, or in a table of PostgreSQL."""

from __future__ import annotations

import os
from typing import Any

from tests.services import database_settings
from tests.settings import *  # noqa: F403

_CACHES: dict[str, dict[str, Any]] = {
    "valkey": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ.get("CACHE_URL", ""),
    },
    "database": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "leases",
        "OPTIONS": {"MAX_ENTRIES": 10_000_000},
    },
}
CACHES = {"leases": _CACHES[os.environ["CACHE_KIND"]]}
if os.environ["CACHE_KIND"] == "database":
    DATABASES = {"default": database_settings(os.environ["CACHE_URL"])}
