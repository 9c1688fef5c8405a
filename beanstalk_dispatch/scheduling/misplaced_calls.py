"""Warns of calls at a place of a project's code where they do harm, once for each line of code.

Every call pays for these rules, so each reads a few attributes.
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
from typing import Final

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections

from beanstalk_dispatch.conf import is_test
from beanstalk_dispatch.conf.variables import EXECUTE_SYNCHRONOUSLY, ON_COMMIT

from .destination import Destination

_OUR_MODULES: Final = ("beanstalk_dispatch.", "django.tasks.", "django_tasks.")

_AT_THE_START: Final = (
    "a task is scheduled while Django starts: every process sends it, also that of 'manage.py "
    "check'. Schedule it in a view or a command, or as a periodic task."
)
_IN_A_COROUTINE: Final = (
    "a task is scheduled in a coroutine, and the event loop waits until SQS has answered: write "
    "await aschedule_function(…), aschedule(…), aschedule_many(…) or task.aenqueue(…)."
)
IN_A_TEST: Final = (
    "a test sends a message to SQS: schedule inside of beanstalk_dispatch.testing.capture_tasks(), "
    f"or run the tests with {EXECUTE_SYNCHRONOUSLY.variable}=True."
)
_BEFORE_THE_COMMIT: Final = (
    "a message is sent before this transaction commits: a worker may not find its rows, and the "
    f"task runs also if it rolls back. Set {ON_COMMIT.variable} to True (or to False if that is "
    "intended), or pass on_commit to schedule()."
)


def warn_if_misplaced(destination: Destination, on_commit: bool | str | None) -> None:
    """Warn of a call that is made while Django starts, in a coroutine, a test or a transaction."""
    if not apps.ready and apps.apps_ready:
        _warn(_AT_THE_START)
    # get_running_loop() would raise an error at every other call, which takes a microsecond.
    elif asyncio._get_running_loop() is not None:  # noqa: SLF001
        _warn(_IN_A_COROUTINE)
    elif is_test():
        if not destination.config.sqs_endpoint_url:
            _warn(IN_A_TEST)
    elif on_commit is None and not destination.is_commit_decided:
        # A process without a connection does not load its backend.
        for each in connections.all(initialized_only=True):
            if each.alias == DEFAULT_DB_ALIAS and each.in_atomic_block:
                _warn(_BEFORE_THE_COMMIT)


def _warn(message: str) -> None:
    """Warn, and name the line of the project that makes the call."""
    level, frame = 0, inspect.currentframe()
    while frame and frame.f_globals["__name__"].startswith(_OUR_MODULES):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level + 1)
