"""Worker: runs what its queues bring in threads of its own, from start to stop.

Runners call the handler and nothing else. Each queue has its own threads for SQS (polling.py).
The main thread only looks on, so nothing can keep it from a stop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.execution import time_limit as timeouts
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Received

from .consumer import Poller, unending
from .in_flight import Verdict, expect_end
from .prefetch import Counters, Intake, Options, Run, Source

__all__ = ["EXIT_NO_QUEUE", "EXIT_STUCK", "Counters", "Options", "Verdict", "Worker"]

logger = logging.getLogger("beanstalk_dispatch.worker")

EXIT_STUCK: Final = 75
"""EX_TEMPFAIL: a task could not be interrupted; the supervisor should start a new process."""
EXIT_NO_QUEUE: Final = 69
"""EX_UNAVAILABLE: with ``burst``, a queue that does not exist."""

_TICK: Final = 0.1  # seconds between two looks of the main thread
_LATE: Final = 3.0  # seconds after its time at which a stop no longer waits for a long poll
_SETTLE: Final = 4.0  # seconds a stop waits for SQS to take what it is owed
_LOG_WITHIN: Final = 1.0  # seconds a stop waits for a log line

Handler = Callable[[Received], Verdict]
Tick = Callable[[], None]


class Worker:
    """Drains queues, given by the names they are scheduled with, until told to stop."""

    def __init__(self, queues: Sequence[str], handler: Handler, options: Options) -> None:
        self.options = options
        self.intake = Intake(options)
        self.sources = [Source.named(n, options.visibility) for n in dict.fromkeys(queues)]
        self._handler = handler
        self._pollers = [
            Poller(s, self.intake, visibility=options.visibility, heartbeat=options.heartbeat)
            for s in self.sources
        ]
        self._is_stopping = self._is_over = False
        self._exit_code = 0
        self._running: dict[int, tuple[Source, Received]] = {}  # by thread

    @property
    def counters(self) -> Counters:
        return self.intake.counters

    def run(self, *ticks: Tick) -> int:
        """Work until ``stop``, then return the exit code. ``ticks`` are called now and then."""
        runners = [
            threading.Thread(
                target=unending, args=(self._run_next,), name=f"beanstalk_dispatch-{i}", daemon=True
            )
            for i in range(self.options.threads)
        ]
        # Each in a thread of its own: one may write to a terminal, or log.
        tickers = [threading.Thread(target=self._tick, args=(t,), daemon=True) for t in ticks]
        names = " ".join(source.name for source in self.sources)
        logger.info("work queues=%r threads=%d", names, self.options.threads)
        for thread in runners + tickers:
            thread.start()
        for poller in self._pollers:
            poller.start()
        while not self._is_stopping:
            time.sleep(_TICK)
            self._look()
        self._finish(runners)
        self._is_over = True
        _join(tickers, 1.0)
        return self._exit_code

    def stop(self, exit_code: int = 0) -> None:
        """Take no more work; ``run`` ends what runs and gives the rest back.

        Takes no lock: a signal handler may call it.
        """
        if not self._is_stopping:
            self._exit_code = exit_code
            self._is_stopping = self.intake.is_closed = True

    def is_stopping(self) -> bool:
        return self._is_stopping

    def overdue(self) -> list[Received]:
        """What runs longer than it can have been meant to, and could not be interrupted."""
        stuck = {limit.thread_id for limit in timeouts.stuck()}
        now = time.monotonic()
        return [
            message
            for thread_id, (_, message) in list(self._running.items())
            if thread_id in stuck or message.due <= now
        ]

    def depths(self) -> list[tuple[str, int]]:
        """About how many messages wait in each queue that tells; one SQS request per queue."""
        found = []
        for source in self.sources:
            with suppress(SchedulingError):
                found.append((source.name, open_queue(source.name).depth()))
        return [(name, depth) for name, depth in found if depth is not None]

    # --- the main thread -------------------------------------------------------------------

    def _look(self) -> None:
        """Give back what waits for too long; stop if there is a reason."""
        self.intake.look()
        if overdue := self._let_go_of_overdue():
            self.stop(EXIT_STUCK)
            _say(_log_stuck, len(overdue))
        elif self.intake.is_used_up():
            self.stop()
        elif self.options.burst:
            self._look_for_the_end()

    def _let_go_of_overdue(self) -> list[Received]:
        """Their visibility is not extended any more, so that somebody else gets them."""
        overdue = self.overdue()
        for message in overdue:
            message.due = 0.0
        return overdue

    def _look_for_the_end(self) -> None:
        if missing := [source.name for source in self.sources if source.is_missing]:
            self.stop(EXIT_NO_QUEUE)
            logger.error(
                "stop reason=no-queue queues=%r exit_code=%d", " ".join(missing), EXIT_NO_QUEUE
            )
        elif all(source.is_empty and not source.holdings.held for source in self.sources):
            self.stop()

    def _finish(self, runners: list[threading.Thread]) -> None:
        """An open long poll is left to come back: SQS may have put messages in its answer."""
        options, stopped_at = self.options, time.monotonic()
        self.intake.close()
        _say(self._log_stop)
        receivers = [thread for poller in self._pollers for thread in poller.receivers]
        while (
            (time.monotonic() < stopped_at + options.grace and self._are_at_work(runners))
            or (time.monotonic() < stopped_at + options.wait + _LATE and _alive(receivers))
        ):  # fmt: skip
            self._let_go_of_overdue()
            time.sleep(_TICK / 10)
        self._give_up_running()
        for poller in self._pollers:
            poller.close()
        _join([thread for poller in self._pollers for thread in poller.keepers], _SETTLE)
        _say(self._log_stopped)

    def _are_at_work(self, runners: list[threading.Thread]) -> bool:
        """Whether a task still runs that can be expected to end."""
        return len(_alive(runners)) > len(self.overdue())

    def _give_up_running(self) -> None:
        for thread_id, (source, message) in list(self._running.items()):
            _say(_log_unfinished, message, thread_id)
            if self.options.heartbeat:  # else it may run on, where it was posted to
                source.holdings.give_back([message])

    def _log_stop(self) -> None:
        polls = sum(source.polls for source in self.sources)
        logger.info(
            "stop running=%d open_polls=%d grace=%g",
            self.counters.running, polls, self.options.grace,
        )  # fmt: skip

    def _log_stopped(self) -> None:
        for source in self.sources:
            if held := len(source.holdings.held):
                logger.error("stop unsettled queue=%s count=%d", source.name, held)
        counters = self.counters
        logger.info(
            "stopped done=%d failed=%d running=%d exit_code=%d",
            counters.done, counters.failed, counters.running, self._exit_code,
        )  # fmt: skip

    # --- other threads ---------------------------------------------------------------------

    def _tick(self, tick: Tick) -> None:
        is_logged = False
        while not self._is_over:
            try:
                tick()
                is_logged = False
            except Exception:
                if not is_logged:
                    logger.exception("progress or health could not be shown")
                is_logged = True
            time.sleep(_TICK)

    def _run_next(self) -> bool:
        run = self.intake.next()
        if run is None:
            return False
        unrun = list(run.messages)
        delay = 0.0
        try:
            while unrun and self._may_run(run, unrun):
                message = unrun.pop(0)
                verdict = self._handle(run.source, message)
                if not verdict.delete:
                    # The rest of a FIFO group must wait for this one.
                    delay = verdict.delay or 0
                    break
        finally:
            run.source.holdings.give_back(unrun, delay)
            self.intake.ended(len(unrun))
        return True

    def _may_run(self, run: Run, unrun: list[Received]) -> bool:
        if len(unrun) < len(run.messages) and not self.intake.may_go_on():
            return False
        if unrun[0].is_ours:
            return True
        logger.warning("skipped id=%s: its visibility ran out", unrun[0].message_id)
        return False

    def _handle(self, source: Source, message: Received) -> Verdict:
        thread_id, started = threading.get_ident(), time.monotonic()
        verdict = Verdict(delete=False)
        if self.options.heartbeat:
            expect_end(message)
        self._running[thread_id] = source, message
        try:
            verdict = self._handler(message)
        except BaseException:
            logger.exception("handler failed id=%s", message.message_id)
        finally:
            del self._running[thread_id]
            source.holdings.settle(message, verdict)
            self.intake.ran(time.monotonic() - started, is_done=verdict.delete)
        return verdict


def _alive(threads: list[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threads if thread.is_alive()]


def _join(threads: list[threading.Thread], seconds: float) -> None:
    """Wait for all threads together for at most so long."""
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))


def _say(log: Callable[..., None], *args: object) -> None:
    """Log, but do not wait for long: a stuck task may hold a logging handler's lock."""
    thread = threading.Thread(target=log, args=args, daemon=True)
    thread.start()
    thread.join(_LOG_WITHIN)


def _log_stuck(tasks: int) -> None:
    logger.critical("stop reason=stuck tasks=%d exit_code=%d", tasks, EXIT_STUCK)


def _log_unfinished(message: Received, thread_id: int) -> None:
    logger.error("stop unfinished id=%s thread=%s", message.message_id, thread_id)
