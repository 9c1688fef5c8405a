"""The settings of the benchmark of long tasks, with the lease in the database."""

from __future__ import annotations

from .outbox_settings import *  # noqa: F403

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "leases": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "leases",
        "OPTIONS": {"MAX_ENTRIES": 10_000_000},
    },
}
