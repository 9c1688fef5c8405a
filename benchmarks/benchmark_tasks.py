"""The tasks of benchmarks/django_tasks.py."""

from __future__ import annotations

from beanstalk_dispatch.contrib.tasks import task


def plain(number: int, word: str, *, x: int) -> None:
    """Do nothing."""


@task
def work(number: int, word: str, *, x: int) -> None:
    """Do nothing."""
