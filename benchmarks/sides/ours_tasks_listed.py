"""The Django task of ``ours_tasks.py``."""

from __future__ import annotations

from beanstalk_dispatch.contrib.tasks import task


@task
def noop(number: int, word: str, *, x: int) -> None:
    """Do nothing."""
