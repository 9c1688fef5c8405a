"""The settings of the example project, with a cache for leases."""

from __future__ import annotations

import os

from example_settings.settings import *  # noqa: F403

ROOT_URLCONF = "example_settings.urls"
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "leases": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{os.environ['LEASES_PORT']}",
        "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1},
    },
}
