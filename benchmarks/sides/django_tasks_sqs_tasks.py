"""The tasks of django-tasks-sqs, which finds a task by its module."""

from __future__ import annotations

from django.tasks import task

from . import tasks


@task(queue_name=tasks.QUEUE)
def noop(number: int, word: str, *, x: int) -> None:
    """Do nothing."""


@task(queue_name=tasks.QUEUE)
def cpu5(number: int, word: str, *, x: int) -> None:
    """Use 5 ms of CPU time."""
    tasks.cpu5(number, word, x=x)


@task(queue_name=tasks.QUEUE)
def sleep50(number: int, word: str, *, x: int) -> None:
    """Wait for 50 ms."""
    tasks.sleep50(number, word, x=x)


@task(queue_name=tasks.QUEUE)
def counted50(number: int, word: str, *, x: int) -> None:
    """Wait for 50 ms, and add a byte to a file."""
    tasks.counted50(number, word, x=x)
