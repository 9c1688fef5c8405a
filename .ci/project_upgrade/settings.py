"""The settings of a project whose machines run two releases at a time. The rest is variables."""

from __future__ import annotations

import os

SECRET_KEY = "for-the-rehearsal-only"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
INSTALLED_APPS = ["beanstalk_dispatch"]
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ["CACHE_URL"],
    }
}
USE_TZ = True
ROOT_URLCONF = "urls"
ALLOWED_HOSTS = ["localhost"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": f"{os.environ['RELEASE']:<6}%(levelname)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
