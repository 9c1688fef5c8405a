"""A child: a process that runs the tasks that its parent sends, one at a time."""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

from django.core.signals import request_started

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.changed_fields import changed_fields
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import OUTCOMES, Result
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.left_behind.connections import end_request
from beanstalk_dispatch.running.limits.expected_end import EXPECTED
from beanstalk_dispatch.running.limits.time_limit import time_limit
from beanstalk_dispatch.running.pipeline import run_delivery
from beanstalk_dispatch.running.process_exceptions import all_are_failures
from beanstalk_dispatch.running.run import Run

from . import pipe
from .leftovers import Leftovers
from .pipe import Notes

logger = logging.getLogger("beanstalk_dispatch.isolation")

END_SECONDS: Final = 5
"""The seconds that a child may take for what is registered with ``atexit``, once it has answered.

Sentry's SDK sends its last events then.
"""
_OUT_OF_MEMORY_SCORE: Final = b"500"
_PR_SET_PDEATHSIG: Final = 1
_end_process = os._exit


class ChildConsumer(DelayedCopies):
    """The consumer of a run in a child: what its parent's is."""

    def __init__(self, notes: Notes, *, can_hide: bool) -> None:
        self.can_hide = can_hide
        self._notes = notes

    def is_ending(self) -> bool:
        """Return True if the parent has noted that it is about to end."""
        return self._notes.is_ending


def main(descriptor: int, notes: Notes, *, server: int) -> NoReturn:
    """Run what the parent sends through ``descriptor``, until it sends no more."""
    _prepare_process(notes, server=server)
    with time_limit(END_SECONDS):  # its thread has to start before a task is to blame
        config = get_config()
    leftovers = Leftovers(descriptor, max_memory=config.child_memory)
    tasks, is_last = 0, False
    while not is_last and (request := pipe.receive(descriptor)) is not None:
        notes.has_begun = True
        tasks += 1
        run, result = run_request(request, notes)
        if run.exception is not None:
            run.exception.with_traceback(None)  # it holds the thread of a coroutine's event loop
        is_last = request["is_fresh"] or tasks == config.child_tasks
        why = "" if is_last else leftovers.why_to_end(run.left_behind)
        is_last = is_last or bool(why)
        answer = _to_answer(run, result, ends=is_last)
        flush_output()  # the next task may end this process
        with suppress(ConnectionError):  # its parent has ended
            pipe.send(descriptor, answer)
        if why:
            _log_end(run, why)
    end_process()


def run_request(request: Mapping[str, Any], notes: Notes) -> tuple[Run, Result]:
    """Run the task of a request between Django's signals for the start and end of a request.

    At them Django closes the database connections that are unusable or too old.
    """
    consumer = ChildConsumer(notes, can_hide=request["can_hide"])
    run = Run(Delivery.from_json(request["delivery"]), get_config(), consumer)
    run.message = Message(**request["message"])
    request_started.send_robust(sender=run_request)
    try:
        with all_are_failures():  # this is the main thread
            return run, run_delivery(run, in_child=True)
    finally:
        end_request(run_request)


def _to_answer(run: Run, result: Result, *, ends: bool) -> dict[str, Any]:
    answer = {"id": run.message.id, "result": changed_fields(result), "ends": ends}
    if run.notes:
        answer["notes"] = [*run.notes]
    if (error := run.exception) is not None:
        is_observed = run.outcome is not None and OUTCOMES[run.outcome].is_failure
        answer["error"] = type(error).__name__, quoted_error(error), is_observed
    return answer


def _log_end(run: Run, why: str) -> None:
    message = run.message
    with suppress(Exception):
        logger.warning(
            "child ended id=%s function=%s reason=%s",
            quoted(message.id), quoted(message.function), quoted(why),
        )  # fmt: skip


def _prepare_process(notes: Notes, *, server: int) -> None:
    _end_with(server)
    # In a terminal a debugger has to be in its group to read from it.
    if not os.isatty(0):  # pragma: no branch - the tests have none
        os.setpgid(0, 0)  # what a task sends to its process group reaches its own processes only
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(_OUT_OF_MEMORY_SCORE)  # the kernel ends a child before its parent
    notes.seek_stacks()
    faulthandler.enable(notes.descriptor)
    EXPECTED.write = notes.write_expected_end


def _end_with(server: int) -> None:
    """Have the kernel end this process when its server ends. Linux can do that."""
    if sys.platform == "linux":  # pragma: no branch
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:  # pragma: no cover - it has ended just now
            _end_process(1)


def flush_output() -> None:
    """Write the output so far. A task may have closed or replaced the files."""
    for file in (sys.stdout, sys.stderr):
        with suppress(Exception):
            file.flush()


def end_process() -> NoReturn:  # pragma: no cover - coverage ends in it
    """End this process, after what is registered with ``atexit``, within END_SECONDS."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(END_SECONDS)
    try:
        atexit._run_exitfuncs()  # noqa: SLF001 - sys.exit() would wait for left threads
        logging.shutdown()
        flush_output()
    finally:
        _end_process(0)
