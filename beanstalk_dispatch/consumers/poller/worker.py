"""Worker: receives from its queues and runs their tasks in threads, from the start to the stop.

Each queue has threads that receive (receiver.py), and tasks run in others (task_threads.py). The
answers for the messages are sent by a thread that all queues share (request_threads.py). The main
thread only decides when to stop, so that no task and no request can delay a stop.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.process.role import PROCESS
from beanstalk_dispatch.process.service_thread import ServiceThread, alive, join_within
from beanstalk_dispatch.running.left_behind.spoiled import Spoiled, why_spoiled
from beanstalk_dispatch.running.left_behind.threads import LEFT
from beanstalk_dispatch.scheduling.outbox import OutboxRelay
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received

from .options import WorkerOptions
from .pauses import Pauses
from .prefetch import Counters, Prefetch
from .queue_state import QueueState
from .receiver import QueueReceiver
from .request_threads import RequestThreads
from .runners import Runner, task_id_of
from .task_threads import TaskThreads

logger = logging.getLogger("beanstalk_dispatch.worker")

EXIT_FAILED: Final = 1
"""The exit code of a ``burst`` in which a delivery did not succeed."""
EXIT_STUCK: Final = 75
"""EX_TEMPFAIL: start a new process, for a stuck task or a reason of ``why_spoiled``."""
EXIT_NO_QUEUE: Final = 69
"""EX_UNAVAILABLE: with ``burst``, a queue that does not exist or does not answer."""

Tick = Callable[[], None]
"""A function to call several times a second; ``every`` makes one that acts less often."""


def every(seconds: float, action: Callable[[], object]) -> Tick:
    """Return a tick that calls ``action``, but only once in ``seconds``."""
    called_at = -math.inf

    def tick() -> None:
        nonlocal called_at
        if clock.monotonic() - called_at >= seconds:
            called_at = clock.monotonic()
            action()

    return tick


class Worker:
    """A worker that runs the tasks of its queues until it is stopped, or ends by itself."""

    def __init__(self, queues: Sequence[str], runner: Runner, options: WorkerOptions) -> None:
        """Take the names of queues as ``schedule_function`` takes them."""
        self.options = options
        self.prefetch = Prefetch(options)
        self.queues = [QueueState.create(name, options) for name in dict.fromkeys(queues)]
        self.tasks = TaskThreads(runner, self.prefetch, options)
        self.requests = RequestThreads([queue.in_flight for queue in self.queues], options)
        self._receivers = [QueueReceiver(queue, self.prefetch, options) for queue in self.queues]
        self._pauses = Pauses(self.queues, self.prefetch) if options.obeys_pauses else None
        self.relay: OutboxRelay | None = None
        """The relay that sends from the outbox in this process, if it does."""
        self._is_stopping = self._has_stopped = False
        self._exit_code = 0

    @property
    def counters(self) -> Counters:
        """The counts of the worker."""
        return self.prefetch.counters

    def run(self, *ticks: Tick) -> int:
        """Work until there is a reason to stop, then stop, and return the exit code.

        Each of ``ticks`` is called in a thread of its own, because it may wait for a terminal.
        """
        if self._pauses is not None:
            look = partial(self._obey_pauses, self._pauses)
            ticks = (*ticks, every(self.options.times.pause_check_interval, look))
        tickers = [
            ServiceThread(partial(self._call_until_stopped, tick), name="tick") for tick in ticks
        ]
        self._start_threads(tickers)
        while not self._is_stopping:
            clock.sleep(self.options.times.stop_check_interval)
            self.prefetch.requeue_expired()
            self.requests.start_others_if_busy()
            self._check_stop_conditions()
        self._shut_down()
        self._has_stopped = True
        join_within(self.options.times.log_timeout, tickers)
        return self._exit_code

    def stop(self, exit_code: int = 0) -> None:
        """Have ``run`` start nothing more and return. Only the first call has an effect.

        Takes no lock: a signal handler may call it.
        """
        if not self._is_stopping:
            self._exit_code = exit_code
            self._is_stopping = self.prefetch.is_closed = True
            PROCESS.is_ending = True

    def is_stopping(self) -> bool:
        """Return True if ``stop`` was called."""
        return self._is_stopping

    def depths(self) -> list[tuple[str, int]]:
        """Return about how many messages wait in each queue; without those that may not be asked.

        Makes one SQS request per queue.
        """
        depths = []
        for queue in self.queues:
            with suppress(SchedulingError):
                depths.append((queue.name, open_queue(queue.name).depth()))
        return [(name, depth) for name, depth in depths if depth is not None]

    def _start_threads(self, tickers: Sequence[threading.Thread]) -> None:
        names = " ".join(queue.name for queue in self.queues)
        logger.info("start queues=%r threads=%d", names, self.options.threads)
        self.tasks.start()
        self.requests.start()
        for ticker in tickers:
            ticker.start()
        if self._pauses is None:
            self._start_receiving()

    def _start_receiving(self) -> None:
        for receiver in self._receivers:
            receiver.start()

    def _obey_pauses(self, pauses: Pauses) -> None:
        pauses.refresh()
        self._start_receiving()  # the first time: by now it is known what is paused

    def _call_until_stopped(self, tick: Tick) -> None:
        is_logged = False
        while not self._has_stopped:
            try:
                tick()
                is_logged = False
            except Exception as exc:
                if not is_logged:
                    logger.exception(
                        "cannot write the status line, the metrics or the health file, "
                        "or look for pauses error=%s",
                        type(exc).__name__,
                    )
                is_logged = True
            clock.sleep(self.options.times.stop_check_interval)

    # --- the reasons to stop ---------------------------------------------------------------

    def _check_stop_conditions(self) -> None:
        if stuck := self.tasks.give_up_overdue():
            self.stop(EXIT_STUCK)
            self._log_without_blocking(_log_stuck, len(stuck))
        elif (spoiled := self.tasks.spoiled or why_spoiled()) is not None:
            self.stop(EXIT_STUCK)
            self._log_without_blocking(_log_spoiled, spoiled)
        elif self.prefetch.is_used_up():
            self.stop()
        elif self.options.burst:
            self._check_end_of_burst()

    def _check_end_of_burst(self) -> None:
        if missing := [queue.name for queue in self.queues if queue.is_missing]:
            self.stop(EXIT_NO_QUEUE)
            logger.error(
                "stop reason=no-queue queues=%r exit_code=%d", " ".join(missing), EXIT_NO_QUEUE
            )
            return
        silent = [queue.name for queue in self.queues if self._is_silent(queue)]
        if not all(queue.name in silent or self._is_drained(queue) for queue in self.queues):
            return
        if silent:
            self.stop(EXIT_NO_QUEUE)
            logger.error(
                "stop reason=no-answer queues=%r exit_code=%d", " ".join(silent), EXIT_NO_QUEUE
            )
        else:
            self.stop(EXIT_FAILED if self.counters.failed else 0)

    def _is_drained(self, queue: QueueState) -> bool:
        is_empty = self.prefetch.is_empty(queue) or queue.is_paused
        return is_empty and not queue.in_flight.messages

    def _is_silent(self, queue: QueueState) -> bool:
        """Return True if its receives have failed until a burst waits for tasks only."""
        patience = self.options.times.burst_patience
        is_failing = queue.receive_backoff.failing_seconds > patience
        return is_failing and not (queue.is_paused or self.tasks.running)

    # --- the stop, in order ----------------------------------------------------------------

    def _shut_down(self) -> None:
        stopped_at = clock.monotonic()
        self.prefetch.close()
        self._log_without_blocking(self._log_stop)
        self._wait_for_running_tasks(until=stopped_at + self.options.grace)
        self._wait_for_open_receives(
            until=stopped_at + self.options.wait + self.options.times.long_poll_margin
        )
        self._requeue_unfinished()
        self._send_last_requests()
        self._log_without_blocking(self._log_stopped)

    def _wait_for_running_tasks(self, *, until: float) -> None:
        """Wait for the tasks that may still end, without those that cannot be interrupted."""
        threads = self.tasks.threads
        self._wait_while(lambda: len(alive(threads)) > len(self.tasks.overdue()), until=until)

    def _wait_for_open_receives(self, *, until: float) -> None:
        """Wait for open long polls: SQS may have put messages into the answer already."""
        threads = [thread for receiver in self._receivers for thread in receiver.threads]
        self._wait_while(lambda: bool(alive(threads)), until=until)

    def _wait_while(self, condition: Callable[[], bool], *, until: float) -> None:
        interval = self.options.times.stop_check_interval
        start_others_if_busy = every(interval, self.requests.start_others_if_busy)
        while clock.monotonic() < until and condition():
            self.tasks.give_up_overdue()
            start_others_if_busy()
            clock.sleep(interval / 10)

    def _requeue_unfinished(self) -> None:
        for thread_id, (queue, message) in list(self.tasks.running.items()):
            self._log_without_blocking(_log_unfinished, message, thread_id)
            # Without heartbeats the task may run on in the web server it was posted to.
            if self.options.heartbeat:
                queue.in_flight.requeue([message])

    def _send_last_requests(self) -> None:
        until = clock.monotonic() + self.options.times.flush_timeout
        self.requests.close(until=until)
        self._wait_while(lambda: bool(alive(self.requests.threads)), until=until)

    def _log_without_blocking(self, log: Callable[..., None], *args: object) -> None:
        """Log, but do not wait for long: a stuck task may hold a logging handler's lock."""
        thread = threading.Thread(target=log, args=args, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # tasks have used up all threads, and the stop continues
            log(*args)
        else:
            thread.join(self.options.times.log_timeout)

    def _log_stop(self) -> None:
        logger.info(
            "stop running=%d open_polls=%d grace=%g",
            self.counters.running,
            sum(queue.open_receives for queue in self.queues),
            self.options.grace,
        )

    def _log_stopped(self) -> None:
        for queue in self.queues:
            if count := len(queue.in_flight.messages):
                logger.error("stop unacknowledged queue=%s count=%d", queue.name, count)
        counters = self.counters
        logger.info(
            "stopped done=%d failed=%d running=%d exit_code=%d",
            counters.done, counters.failed, counters.running, self._exit_code,
        )  # fmt: skip


def _log_stuck(tasks: int) -> None:
    logger.critical("stop reason=stuck tasks=%d exit_code=%d", tasks, EXIT_STUCK)


def _log_spoiled(spoiled: Spoiled) -> None:
    LEFT.report(waits=False)
    line = f"stop {spoiled.fields} exit_code=%d: {spoiled.advice}"
    logger.critical(line, *spoiled.values, EXIT_STUCK)


def _log_unfinished(message: Received, thread_id: int) -> None:
    logger.error("stop unfinished id=%s thread=%s", quoted(task_id_of(message)), thread_id)
