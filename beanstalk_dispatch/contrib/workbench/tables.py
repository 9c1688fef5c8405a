"""The tables of the pages: dead letters in groups and one by one, and what runs now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from beanstalk_dispatch.dead_letters.dead_letter import COLUMNS, GROUP_COLUMNS, grouped
from beanstalk_dispatch.dead_letters.queue import Sample
from beanstalk_dispatch.queues.running import RUN_COLUMNS, TASK_COLUMNS, WORKER_COLUMNS, WhatRuns


class Row(NamedTuple):
    """A row of a table on a page."""

    cells: Sequence[str]
    url: str = ""
    """The address that one of the cells leads to."""
    link: int = 0
    """The position of that cell."""
    is_red: bool = False
    id: str = ""
    """The value of the box that selects the row."""


class Table(NamedTuple):
    """A table on a page."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Row]
    has_boxes: bool = False
    left_out: int = 0
    """The number of rows that are not shown."""


def letter_tables(
    sample: Sample, url_of: Callable[[str], str], *, has_boxes: bool
) -> Sequence[Table]:
    """Return the groups of a sample, which lead to their dead letters, and these."""
    groups = [
        Row(each.cells(sample.looked_at), f"?{urlencode(each.filters())}", link=1)
        for each in grouped(sample.dead_letters)
    ]
    letters = [
        Row(each.cells(), url_of(each.message_id), id=each.message_id)
        for each in sample.dead_letters
    ]
    return (
        Table("In groups", GROUP_COLUMNS, groups),
        Table("One by one", COLUMNS, letters, has_boxes),
    )


def running_tables(found: WhatRuns, url_of: Callable[[str], str]) -> Sequence[Table]:
    """Return the tasks that run, which lead to their results, the workers and periodic tasks."""
    tasks = [
        Row(each.cells(), url_of(each.id), link=1, is_red=each.is_late) for each in found.tasks
    ]
    workers = [Row(each.cells(), is_red=each.is_late) for each in found.workers]
    runs = [Row(each.cells()) for each in found.next_runs]
    return (
        Table("Tasks", TASK_COLUMNS, tasks, left_out=found.left_out),
        Table("Workers", WORKER_COLUMNS, workers),
        Table("Periodic tasks", RUN_COLUMNS, runs),
    )
