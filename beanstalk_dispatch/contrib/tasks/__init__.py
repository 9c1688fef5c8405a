"""Django's task framework on SQS: a backend for TASKS, with a policy for each task.

    TASKS = {"default": {"BACKEND": "beanstalk_dispatch.contrib.tasks.SQSBackend"}}

docs/django-tasks.md has more.
"""

from __future__ import annotations

from typing import Any

from beanstalk_dispatch.contrib import results  # noqa: F401  # keeps results if that is set
from beanstalk_dispatch.running.definitions.dispatch_table import register_tasks

from .backend import SQSBackend, TaskCall
from .policy import SQSTask, task
from .running import DjangoTasks, FailedBefore

__all__ = ["FailedBefore", "SQSBackend", "SQSTask", "TaskCall", "from_environment", "task"]

register_tasks(DjangoTasks())


def from_environment() -> dict[str, dict[str, Any]]:
    """Return the value of TASKS for a project that configures all else by environment variables."""
    return {"default": {"BACKEND": f"{__name__}.SQSBackend"}}
