"""Its settings. The database is a file, for its path see DATABASE_FILE."""

from __future__ import annotations

import os

from beanstalk_dispatch.contrib.tasks import from_environment

SECRET_KEY = "tests-only"
ALLOWED_HOSTS = ["localhost"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "beanstalk_dispatch",
    "beanstalk_dispatch.contrib.results",
    "crontask",
    "maintenance_tasks",
    "overseer",
    "tasks_monitor",
    "tests.apps_project",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["DATABASE_FILE"],
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.urls"
TASKS = from_environment()
USE_TZ = True
