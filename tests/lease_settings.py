"""The settings of a server whose lease is in a cache that all its processes share."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403

CACHES = {
    "leases": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{os.environ['LEASES_PORT']}",
    }
}
