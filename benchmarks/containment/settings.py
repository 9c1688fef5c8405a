"""The settings of a consumer whose tasks misbehave, with the database that is asked for."""

from __future__ import annotations

import os
import resource
import sys

import pymysql

if os.environ["DRIVER"] == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment] # Django takes psycopg2 then

from beanstalk_dispatch.running.leases import process_identity
from tests.services import database_settings
from tests.settings import *  # noqa: F403

INSTALLED_APPS = ["beanstalk_dispatch"]
TIME_ZONE = "UTC"
_database = database_settings(os.environ["POSTGRES"])
if os.environ["DRIVER"] == "pymysql":
    pymysql.install_as_MySQLdb()
    pymysql.version_info = (2, 2, 7, "final", 0)  # Django asks for that of mysqlclient
    _database = {
        "ENGINE": "django.db.backends.mysql", "NAME": "tasks", "USER": "root",
        "HOST": "127.0.0.1", "PORT": os.environ["MARIADB_PORT"],
    }  # fmt: skip
_database["CONN_MAX_AGE"] = 600
if size := os.environ.get("POOL_SIZE"):
    pool = {"min_size": int(size), "max_size": int(size), "timeout": 30}
    _database |= {"CONN_MAX_AGE": 0, "OPTIONS": {"pool": pool}}
DATABASES = {"default": _database}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{os.environ['VALKEY_PORT']}",
    }
}
if seconds := os.environ.get("CACHE_TIMEOUT"):
    CACHES["default"]["OPTIONS"] = {"socket_timeout": float(seconds)}
if "OTHER_MACHINES" in os.environ:
    # No process knows another one, as if each were on a machine of its own.
    process_identity.is_on_lambda = lambda: True  # type: ignore[attr-defined]
if memory := os.environ.get("MEMORY_LIMIT"):
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
if files := os.environ.get("FILE_LIMIT"):
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
