"""System checks for conditions that break a worker in practice. None uses the network.

Each module has the checks of one subject. docs/checks.md has a row for each id.
https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

# Importing a module adds its checks. They are called in this order: contrib_rooms imports the rooms
# whose tasks and variables the modules after it look at.
from . import caches, contrib_rooms, installation, listed_tasks, security, variables  # noqa: F401
from .endpoint import without_endpoint
from .listed_tasks import warning_of_one_task
from .registry import check

__all__ = [
    "check",
    "warning_of_one_task",
    "without_endpoint",
]
