"""Results: the outcome of each task, kept in a cache or in the database.

    BEANSTALK_DISPATCH_RESULTS=results

docs/django-tasks.md has more.
"""

from __future__ import annotations

from beanstalk_dispatch.running.dispatch_table import register_observers
from beanstalk_dispatch.running.run import PROGRESS_SOURCES, RESULT_SOURCES
from beanstalk_dispatch.scheduling.send import SUPERSEDED

from .record import Progress, Status, TaskFailure, TaskRecord
from .recording import note_superseded, observers, shared_recording
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
RESULT_SOURCES.append(shared_recording)
PROGRESS_SOURCES.append(progress_in_words)
SUPERSEDED.append(note_superseded)
