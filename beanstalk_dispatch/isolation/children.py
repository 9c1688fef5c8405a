"""The children of this process, in which tasks run, and the server that makes them."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from beanstalk_dispatch import exceptions
from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, NotImportable, TaskFailed
from beanstalk_dispatch.logging.log_lines import indented, quoted
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.messages.changed_fields import changed_fields
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.process import clock, state
from beanstalk_dispatch.running.cutting import end_cut_task
from beanstalk_dispatch.running.ending import cancelled
from beanstalk_dispatch.running.leases.lease import free_lease_of_ended
from beanstalk_dispatch.running.limits.expected_end import REST_SECONDS
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.running_tasks import RUNNING

from . import pipe
from .leftovers import in_mebibytes, resident_memory
from .server_process import Child, Ended, ServerEnded, ServerFailed, ServerProcess, why_impossible

logger = logging.getLogger("beanstalk_dispatch.isolation")

TRIES: Final = 2
"""The children that are tried if they end before the task begins, and the servers for each."""
STOP_CHECK_SECONDS: Final = 2.0
"""The seconds between two questions to the cache whether a running task is to be stopped."""
_STOPPED: Final = "it was stopped"


class ChildrenOfProcess:
    """The children of this process. Each thread that runs a delivery uses one of them at a time."""

    def __init__(self) -> None:
        self._server: ServerProcess | None = None
        self.forget()

    def forget(self) -> None:
        """Forget the server and its children: those of its parent are not a forked process's."""
        self._lock = threading.Lock()
        self._idle: deque[Child] = deque()
        self._possible: bool | None = None
        self._stops = _Stops()
        server, self._server = self._server, None
        if server is not None:
            server.abandon()

    def close(self) -> None:
        """End the server and its children, and wait until they have ended."""
        server, self._server = self._server, None
        while self._idle:
            self._idle.pop().close()
        if server is not None:
            server.close()
        self.forget()

    def start(self, config: Config) -> None:
        """Start the server at the start of a worker, if its tasks run in children."""
        if config.isolation != "thread" and self.are_possible():
            # What fails here is said by the first task. gunicorn would end itself.
            with self._lock, suppress(OSError):
                if self._server is None:
                    self._start_server()

    def are_possible(self) -> bool:
        """Return True if this process can have children."""
        if self._possible is None:
            self._possible = not why_impossible()
        return self._possible

    def run(self, run: Run, *, is_fresh: bool) -> Result:
        """Run the stages of a child in one, and return its Result.

        Raise NotImportable if no child can be made: the project cannot be imported there, or this
        machine has no process or file left.
        """
        request = _to_request(run, is_fresh=is_fresh)
        for number in range(TRIES):
            try:
                child = self._make_child() if is_fresh or number else self._take_child()
            except (ServerFailed, OSError) as exc:  # such as too many open files
                raise NotImportable(f"no process for the task: {exc}") from exc
            answer = self._ask(child, request, run)
            if not isinstance(answer, Ended):
                return answer
            child.close()
            if answer.has_begun or answer.why == _STOPPED:
                return self._end(run, child, answer)
        raise NotImportable(f"no process for the task: {answer.reason}")

    def _take_child(self) -> Child:
        try:
            return self._idle.pop()
        except IndexError:  # other threads have taken all
            return self._make_child()

    def _make_child(self) -> Child:
        with self._lock:
            for _ in range(TRIES):
                server = self._living_server()
                with suppress(ServerEnded):  # something has killed it
                    return server.make_child()
            raise server.fail("its server has ended again and again")

    def _living_server(self) -> ServerProcess:
        if (server := self._server) is not None:
            if not server.has_ended():
                return server
            server.close()
        return self._start_server()

    def _start_server(self) -> ServerProcess:
        self._server = ServerProcess()
        atexit.unregister(self.close)
        atexit.register(self.close)
        return self._server

    def _ask(self, child: Child, request: bytes, run: Run) -> Result | Ended:
        seconds = run.config.task_timeout.total_seconds() + REST_SECONDS
        answer = child.work(request, seconds, lambda: self._why_to_end(run, child))
        if isinstance(answer, Ended):
            return answer
        try:
            result = _result_of(run, answer)
            ends = answer["ends"]
        except Exception:  # the task has written to its pipe
            return child.end("its answer makes no sense")
        if ends:
            child.close()
        else:
            self._idle.append(child)
        return result

    def _why_to_end(self, run: Run, child: Child) -> str:
        """Return why a running child is to be ended; the empty string if it is not."""
        if run.consumer.is_ending():
            child.note_ending()
        limit = run.config.child_memory
        if limit and (used := resident_memory(child.process_id)) > limit:
            return (
                f"it used {in_mebibytes(used)} of memory, more than the {in_mebibytes(limit)} of "
                "BEANSTALK_DISPATCH_CHILD_MEMORY"
            )
        return _STOPPED if self._stops.is_asked(run) else ""

    def _end(self, run: Run, child: Child, ended: Ended) -> Result:
        """End the run of a task whose child has ended, instead of the child."""
        message = run.message
        is_stopped = ended.why == _STOPPED
        logger.log(
            logging.WARNING if is_stopped else logging.ERROR,
            "child ended id=%s function=%s process_id=%d exit_code=%s reason=%s%s",
            quoted(message.id), quoted(message.function), child.process_id, ended.exit_code,
            quoted(ended.reason), f"\n{indented(ended.stacks)}" if ended.stacks else "",
        )  # fmt: skip
        if (alias := run.config.lease_cache) is not None:
            free_lease_of_ended(alias, message, queue=run.queue)
        if is_stopped:
            when = "while it ran" if ended.has_begun else "before it began"
            return cancelled(run, f"{_STOPPED} {when}")
        if ended.exit_code is None:  # the server has ended, for which no task is to blame
            reason = ended.reason
            run.exception = exceptions.TaskCut(reason)
            return Result(outcome=Outcome.CUT, reason=reason)
        return end_cut_task(run, ended.reason, ended.stacks)


class _Stops:
    """The tasks that are to be stopped, as the lease's cache knew them last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_ask_at = 0.0
        self._asked: frozenset[str] = frozenset()

    def is_asked(self, run: Run) -> bool:
        """Return True if the task is to be stopped.

        One thread asks for all of them, once in STOP_CHECK_SECONDS.
        """
        if clock.monotonic() >= self._next_ask_at and self._lock.acquire(blocking=False):
            try:
                self._next_ask_at = clock.monotonic() + STOP_CHECK_SECONDS
                self._asked = record.to_be_stopped(
                    [each.message.id for each in RUNNING.now()], run.config
                )
            finally:
                self._lock.release()
        return run.message.id in self._asked


def _to_request(run: Run, *, is_fresh: bool) -> bytes:
    return pipe.to_frame({
        "delivery": run.delivery.to_json(),
        "message": changed_fields(run.message),
        "can_hide": run.consumer.can_hide,
        "is_fresh": is_fresh,
    })  # fmt: skip


def _result_of(run: Run, answer: Mapping[str, Any]) -> Result:
    """Return the Result in a child's answer, and note on the run what its parent shows of it.

    Raise any exception for an answer that makes no sense.
    """
    if answer["id"] != run.message.id:
        raise ValueError("the answer is about another task")
    result = Result.from_json(answer["result"])
    run.attempted = result
    if "error" in answer:
        name, text, is_observed = answer["error"]
        run.exception = _to_exception(name, text, is_observed=is_observed)
    for name in answer.get("notes", ()):
        run.notes.setdefault(name, None)
    return result


def _to_exception(name: str, text: str, *, is_observed: bool) -> Exception:
    """Return an exception that stands for one in a child."""
    if is_observed:
        return TaskFailed(f"{name}: {text}")
    kind = getattr(exceptions, name, None)
    if isinstance(kind, type) and issubclass(kind, BeanstalkDispatchError):
        error = BeanstalkDispatchError.__new__(kind)
        error.args = (text,)
        return error
    return BeanstalkDispatchError(f"{name}: {text}")


CHILDREN: Final = ChildrenOfProcess()
state.declare(CHILDREN.forget, in_tests=False)
state.declare(CHILDREN.close, in_child=False)
