"""The settings of the benchmark of the outbox."""

from __future__ import annotations

from .settings import *  # noqa: F403
from .settings import DATABASES

INSTALLED_APPS = ["beanstalk_dispatch", "beanstalk_dispatch.contrib.outbox"]
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A transaction that begins with a read could otherwise fail at its first write.
    DATABASES["default"]["OPTIONS"] = {"timeout": 20, "transaction_mode": "IMMEDIATE"}
