"""Results: the outcome of each task, kept in a cache or in the database.

    BEANSTALK_DISPATCH_RESULTS=results

docs/django-tasks.md has more.
"""

from __future__ import annotations

from asgiref.sync import sync_to_async

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.variables import RESULTS
from beanstalk_dispatch.exceptions import ConfigurationError, UnknownResult
from beanstalk_dispatch.messages.message import is_name
from beanstalk_dispatch.running.dispatch_table import register_observers
from beanstalk_dispatch.running.run import RESULT_SOURCES

from .record import Status, TaskFailure, TaskRecord
from .recording import observers, shared_recording
from .stores import store_of

__all__ = ["Status", "TaskFailure", "TaskRecord", "aget_result", "get_result"]

register_observers(observers)
RESULT_SOURCES.append(shared_recording)


def get_result(task_id: str) -> TaskRecord:
    """Return the record of the task that ``schedule_function`` returned this id for.

    Raise UnknownResult if nothing is kept under this id, and ConfigurationError if
    BEANSTALK_DISPATCH_RESULTS is not set. Errors of the cache or the database are raised as they
    are.
    """
    store = store_of(get_config())
    if store is None:
        raise ConfigurationError(f"{RESULTS.variable} is not set: no result is kept")
    # A database may refuse an id that no task has, such as one with a zero character.
    record = store.load(task_id) if is_name(task_id) else None
    if record is None:
        raise UnknownResult(f"no result is kept under the id {task_id[:100]!r}")
    return record


async def aget_result(task_id: str) -> TaskRecord:
    """Return the record of a task as ``get_result`` does, awaitable."""
    return await sync_to_async(get_result)(task_id)
