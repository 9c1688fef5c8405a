"""Django's own backends for tests, which accept the policy and the queues of this package's tasks.

    TASKS = {"default": {"BACKEND": "beanstalk_dispatch.contrib.tasks.testing.ImmediateBackend"}}

With Django's, the modules of a project that give their tasks a policy or a queue fail at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import library
from .policy import SQSTask


class _AnyQueue(library.BaseTaskBackend):
    """A backend that accepts each queue name, unless QUEUES is given."""

    task_class = SQSTask

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, {"QUEUES": [], **params})


class ImmediateBackend(_AnyQueue, library.ImmediateBackend):
    """A backend that runs a task at once, without retries and without its time limit."""


class DummyBackend(_AnyQueue, library.DummyBackend):
    """A backend that runs no task, and keeps the results in ``default_task_backend.results``."""
