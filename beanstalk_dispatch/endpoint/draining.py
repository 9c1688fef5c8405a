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
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.log_lines import quoted
from beanstalk_dispatch.running import monkey_patching, time_limit
from beanstalk_dispatch.running.open_files import can_open_files
from beanstalk_dispatch.running.running_tasks import RUNNING, RunningTask

logger = logging.getLogger("beanstalk_dispatch.endpoint")

STUCK_SHARE: Final = 0.5
"""The share of gunicorn's threads that may be stuck before its worker process is replaced."""


class _ServerProcess:
    """This process of a web server."""

    def __init__(self) -> None:
        self.threads: int | None = None
        """How many threads gunicorn gives it; None if it is not one of gunicorn's."""
        self.stopping = ""
        """Why it takes no new task; empty while it does."""


_process = _ServerProcess()


def reason(config: Config) -> str:
    """Return why no new task may run here. The empty string means that it may."""
    if _process.stopping:
        return _process.stopping
    if config.drain_file and os.path.exists(config.drain_file):
        return f"{config.drain_file} exists"
    if _process.threads and (stuck := len(time_limit.stuck())) > _process.threads * STUCK_SHARE:
        logger.critical(
            "recycle pid=%d reason=stuck stuck=%d threads=%d",
            os.getpid(), stuck, _process.threads,
        )  # fmt: skip
        _replace_process(f"{stuck} of {_process.threads} threads are stuck")
    if _process.threads and not can_open_files():
        logger.critical(
            "recycle pid=%d reason=no-files: this process can open no more files, so every task "
            "would fail; a task most likely keeps files or connections open",
            os.getpid(),
        )
        _replace_process("the process can open no more files")
    return _process.stopping


def is_stopping() -> bool:
    """Whether this process is going to end."""
    return bool(_process.stopping)


def threads() -> int | None:
    """How many threads this gunicorn worker has. None: it is another server."""
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
        _log_in_a_thread(RUNNING.now())
        handler(signum, frame)  # type: ignore[operator,misc]

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.siginterrupt(signal.SIGTERM, False)
    _process.threads = worker.cfg.threads
    with suppress(ConfigurationError):  # which is in the log, and fails each request
        config = get_config()
        _log_short_timeout(worker, config)
        RUNNING.report_cut_tasks(config)
    return True


def _log_short_timeout(worker: Any, config: Config) -> None:
    """A sync worker does not answer its parent while a task runs, which kills it for that.

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
    """gunicorn's hook of that name, for what AppConfig.ready() was too early for.

    https://docs.gunicorn.org/en/stable/settings.html#post-worker-init
    """
    if watch():
        monkey_patching.log_if_patched()


def _log_in_a_thread(tasks: Sequence[RunningTask]) -> None:
    """Log what runs, from a signal handler: another thread may wait for the locks of logging.

    threading.Thread takes a lock itself, which the interrupted code may hold.
    """
    if tasks:
        with suppress(RuntimeError):  # no thread can be started
            _thread.start_new_thread(_log_running, (tasks,))


def _log_running(tasks: Sequence[RunningTask]) -> None:
    for task in tasks:
        logger.warning(
            "stopping running id=%s function=%s seconds=%.0f",
            quoted(task.message.id), quoted(task.message.function), task.seconds,
        )  # fmt: skip


def _replace_process(reason: str) -> None:
    """Make gunicorn replace this process. Running tasks have its graceful_timeout to end."""
    _process.stopping = reason
    os.kill(os.getpid(), signal.SIGTERM)
