"""Decide whether this process takes new tasks.

It does not when it is stopping, when it is drained, or when too many of its threads are stuck.
aws-sqsd still posts while a machine is being removed, and gunicorn still runs the requests that it
has queued when it gets SIGTERM. Tasks that have not started by then run on another machine.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.process import clock, state
from beanstalk_dispatch.running.leases.worker_entry import WORKER_ENTRY
from beanstalk_dispatch.running.left_behind.spoiled import why_spoiled
from beanstalk_dispatch.running.left_behind.threads import LEFT
from beanstalk_dispatch.running.limits import monkey_patching, time_limit
from beanstalk_dispatch.running.limits.thread_frames import threads_within
from beanstalk_dispatch.running.running_tasks import RUNNING, RunningTask

from . import holding

logger = logging.getLogger("beanstalk_dispatch.endpoint")

EXIT_SECONDS: Final = 5.0
"""Seconds that the server may take for its own end once no request runs that can end."""
_LOOK_SECONDS: Final = 0.1
_LOG_SECONDS: Final = 1.0
"""Seconds that the end waits for its own log line: a stuck task may hold the lock of a handler."""
STUCK_SHARE: Final = 0.5
"""The share of gunicorn's threads that may be stuck before its worker process is replaced."""


class _ServerProcess:
    """The state of this process of a web server: its threads, and why it stops."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget the web server. A process that a task forks is not gunicorn's to replace."""
        self.threads: int | None = None
        """The number of threads or greenlets that gunicorn gives the process.

        None under another server.
        """
        self.stopping = ""
        """The reason why the process takes no new task; empty while it does."""
        self.graceful_timeout: float | None = None
        """Seconds that running requests may take to end; None if the worker has no threads."""
        self.judging = threading.Lock()
        self.is_replaced = False
        """True if the process stops for a reason of ours, so that another one replaces it."""


_process: Final = _ServerProcess()
state.declare(_process.forget)


def reason(config: Config) -> str:
    """Return why no new task may run here. The empty string means that it may."""
    if _process.stopping:
        return _process.stopping
    if config.drain_file and os.path.exists(config.drain_file):
        return f"{config.drain_file} exists"
    return ""


def replace_if_spoiled() -> None:
    """Replace this process of gunicorn's if tasks have spoiled it, or too many threads are stuck.

    Each delivery calls this, and the watchdog for the case that all threads hang.
    """
    if not _process.threads or not _process.judging.acquire(blocking=False):
        return
    try:
        if not _process.stopping:
            _judge(_process.threads)
    finally:
        _process.judging.release()


def _judge(threads: int) -> None:
    """Replace the process first and log it then: a stuck task may hold the lock of a handler."""
    stuck = len(time_limit.stuck_threads())
    if stuck > threads * STUCK_SHARE:
        _replace_process(f"{stuck} of {threads} threads are stuck")
        logger.critical(
            "recycle pid=%d reason=stuck stuck=%d threads=%d",
            os.getpid(), stuck, threads,
        )  # fmt: skip
    elif (spoiled := why_spoiled()) is not None:
        _replace_process(spoiled.why)
        LEFT.report(waits=False)
        line = f"recycle pid=%d {spoiled.fields}: {spoiled.advice}"
        logger.critical(line, os.getpid(), *spoiled.values)


def is_stopping() -> bool:
    """Return True if this process is going to end."""
    return bool(_process.stopping)


def threads() -> int | None:
    """Return the number of threads of this gunicorn worker; None if the server is another one."""
    return _process.threads


def watch() -> bool:
    """Listen for SIGTERM, and return True, if this process is a gunicorn worker.

    It then also logs which tasks were cut off in the process that it replaces.

    Call this in the main thread. AppConfig.ready() does so. With gunicorn's ``preload_app`` that
    is too early, so ``gunicorn.conf.py`` must import ``post_worker_init`` from here.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGTERM)
    worker: Any = getattr(handler, "__self__", None)
    if not any(each.__module__ == "gunicorn.workers.base" for each in type(worker).__mro__):
        return False

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        _process.stopping = _process.stopping or "the server is stopping"
        if tasks := RUNNING.now():
            _start_thread(_log_running, tasks)
        if _process.graceful_timeout is not None:
            _start_thread(_end_process, _process.graceful_timeout)
        handler(signum, frame)  # type: ignore[operator,misc]

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.siginterrupt(signal.SIGTERM, False)
    is_patched = bool(monkey_patching.patched_by())  # each connection then has its greenlet
    _process.threads = worker.cfg.worker_connections if is_patched else worker.cfg.threads
    if any(each.__module__ == "gunicorn.workers.gthread" for each in type(worker).__mro__):
        _process.graceful_timeout = worker.cfg.graceful_timeout
    time_limit.call_when_stuck(replace_if_spoiled)
    with suppress(ConfigurationError):  # which is in the log, and fails each request
        config = get_config()
        _log_short_timeout(worker, config)
        RUNNING.report_cut_tasks(config)
        CHILDREN.start(config)
        WORKER_ENTRY.start("endpoint", config, threads=_process.threads)
    return True


def _log_short_timeout(worker: Any, config: Config) -> None:
    """Warn if the worker's timeout is shorter than a task: gunicorn kills a sync worker for that.

    A sync worker does not answer its parent while a task runs.

    https://docs.gunicorn.org/en/stable/settings.html#timeout
    """
    limit = config.task_timeout.total_seconds()
    is_sync = any(each.__module__ == "gunicorn.workers.sync" for each in type(worker).__mro__)
    if config.worker and is_sync and 0 < worker.cfg.timeout <= limit:
        logger.error(
            "start gunicorn_timeout=%d time_limit=%g: gunicorn kills a worker without threads in "
            "the middle of a task that takes longer than its timeout; run it with --threads 15",
            worker.cfg.timeout, limit,
        )  # fmt: skip


def post_worker_init(worker: object) -> None:
    """Set this process up, as gunicorn's hook: AppConfig.ready() is too early for that.

    https://docs.gunicorn.org/en/stable/settings.html#post-worker-init
    """
    if watch():
        monkey_patching.log_if_patched()


def _start_thread(function: Callable[..., None], *args: object) -> None:
    """Start a thread from a signal handler, whose interrupted code may hold any lock.

    It may hold those of logging, and that which threading.Thread takes.
    """
    with suppress(RuntimeError):  # no thread can be started
        _thread.start_new_thread(function, args)


def _log_running(tasks: Sequence[RunningTask]) -> None:
    for task in tasks:
        logger.warning(
            "stopping running id=%s function=%s seconds=%.0f",
            quoted(task.message.id), quoted(task.message.function), task.seconds,
        )  # fmt: skip


def _replace_process(reason: str) -> None:
    """Make gunicorn replace this process. Running tasks have its graceful_timeout to end."""
    _process.stopping = reason
    _process.is_replaced = True
    os.kill(os.getpid(), signal.SIGTERM)


def _end_process(graceful_timeout: float) -> None:
    """End this process once no request runs that can end, and the server does not end it.

    gunicorn waits for its whole graceful_timeout for threads that are stuck, and the interpreter
    for as long as threads run that tasks have left behind. Meanwhile no process takes the place of
    this one. The server's own end is tried first: it runs what is registered with atexit.
    """
    until = clock.monotonic() + graceful_timeout
    while clock.monotonic() < until and _requests_that_can_end():
        clock.sleep(_LOOK_SECONDS)
    clock.sleep(EXIT_SECONDS)
    if _process.is_replaced or time_limit.stuck() or LEFT.delay_exit():
        logged = threading.Event()
        _start_thread(_log_end, logged)
        logged.wait(_LOG_SECONDS)
        WORKER_ENTRY.end()
        os._exit(0)


def _requests_that_can_end() -> int:
    """Count the threads that answer a request, without those that are stuck or hold an answer."""
    answering = threads_within("gunicorn.workers.gthread", "handle_request")
    holding_answers = threads_within(holding.__name__, holding.hold.__name__)
    return len(answering - time_limit.stuck_threads() - holding_answers)


def _log_end(logged: threading.Event) -> None:
    logger.error(
        "ended pid=%d stuck=%d left_by=%r: neither could be waited for",
        os.getpid(), len(time_limit.stuck_threads()), LEFT.summary(),
    )  # fmt: skip
    logged.set()
