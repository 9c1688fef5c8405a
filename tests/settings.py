"""The settings of the test project: no variable of ours is in them."""

from __future__ import annotations

import os
import tempfile
from typing import Any

SECRET_KEY = "tests-only"
ALLOWED_HOSTS = ["localhost", "testserver"]
INSTALLED_APPS = [
    "beanstalk_dispatch",
    "beanstalk_dispatch.contrib.outbox",
    "beanstalk_dispatch.contrib.results",
]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
_RUN = [os.environ.get(f"PYTEST_XDIST_{name}", "") for name in ("TESTRUNUID", "WORKER")]
CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "shared": {  # with the processes that a test starts
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": f"{tempfile.gettempdir()}/beanstalk_dispatch-tests-{'-'.join(_RUN)}",
    },
}
TASKS = {"default": {"BACKEND": "beanstalk_dispatch.contrib.tasks.SQSBackend"}}
ROOT_URLCONF = "tests.urls"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"beanstalk_dispatch": {"level": "INFO"}},
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"]},
}
