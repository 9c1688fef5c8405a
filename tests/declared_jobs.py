"""A module of tasks that BEANSTALK_DISPATCH_TASKS lists, as a project writes one."""

from __future__ import annotations

from django.utils.functional import SimpleLazyObject

from beanstalk_dispatch.safe_task import SafeTask

from .jobs import Recorder, calls, record

__all__ = ["Recorder", "record"]  # imported, so they belong to tests.jobs


class Base(SafeTask, timeout=7):
    """Has no ``run``: the classes that inherit from it do."""


class Report(Base, max_attempts=3):
    schedule = "17 4 * * *"

    def run(self, number: int) -> None:
        calls.append(("report", number))


class Misspelt(SafeTask):
    ran = staticmethod(record)


def plain(number: int) -> None:
    calls.append(("plain", number))


lazy = SimpleLazyObject(lambda: 1 / 0)
"""Whoever evaluates it fails."""
