"""Results: the outcome of each task, kept in a cache or in the database.

    BEANSTALK_DISPATCH_RESULTS=results

docs/django-tasks.md has more.
"""

from __future__ import annotations

from beanstalk_dispatch.running.definitions.configured import register_observers
from beanstalk_dispatch.running.kept_results import KEPT_RESULTS, KeptResults

from .record import Progress, Status, TaskFailure, TaskRecord
from .recording import Recording, note_superseded, observers
from .stores import progress_in_words
from .waiting import aget_result, await_result, get_result, wait

__all__ = [
    "Progress",
    "Status",
    "TaskFailure",
    "TaskRecord",
    "aget_result",
    "await_result",
    "get_result",
    "wait",
]

register_observers(observers)
KEPT_RESULTS.append(KeptResults(Recording, progress_in_words, note_superseded))
