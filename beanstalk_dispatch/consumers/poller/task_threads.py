"""The threads that run tasks. They call the runner and never wait for SQS."""

from __future__ import annotations

import logging
import threading
from functools import partial

from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.process.service_thread import ServiceThread
from beanstalk_dispatch.running.left_behind.spoiled import Spoiled, why_spoiled
from beanstalk_dispatch.running.limits import time_limit
from beanstalk_dispatch.sqs.queue import Received

from .in_flight import Ack, Nack
from .options import WorkerOptions
from .prefetch import Prefetch
from .queue_state import MessageGroup, QueueState
from .runners import Runner, task_id_of

logger = logging.getLogger("beanstalk_dispatch.worker")


class TaskThreads:
    """The threads that take prefetched messages, run them, and note the answers for SQS."""

    def __init__(self, runner: Runner, prefetch: Prefetch, options: WorkerOptions) -> None:
        self.running: dict[int, tuple[QueueState, Received]] = {}
        """The messages whose tasks run, each with its queue, by the id of their thread."""
        self.spoiled: Spoiled | None = None
        """The reason why a task was not started and the process is to be replaced."""
        self._runner = runner
        self._prefetch = prefetch
        self._heartbeat = options.heartbeat
        self.threads = [
            ServiceThread(self._run_until_closed, name=f"task-{number}")
            for number in range(options.threads)
        ]

    def start(self) -> None:
        """Start all threads."""
        for thread in self.threads:
            thread.start()

    def overdue(self) -> list[Received]:
        """Return the messages whose tasks have exceeded their time and could not be interrupted."""
        stuck = {limit.thread_id for limit in time_limit.stuck()}
        now = clock.monotonic()
        return [
            message
            for thread_id, (_, message) in list(self.running.items())
            if thread_id in stuck or message.deadline <= now
        ]

    def give_up_overdue(self) -> list[Received]:
        """End the heartbeats of overdue messages, so that other workers get them; return them."""
        overdue = self.overdue()
        for message in overdue:
            message.deadline = 0.0
        return overdue

    def _run_until_closed(self) -> None:
        while group := self._prefetch.next():  # None once the worker stops
            self._run_group(group)

    def _run_group(self, group: MessageGroup) -> None:
        remaining = list(group.messages)
        delay = 0.0
        try:
            while remaining and self._may_start(group, remaining):
                answer = self._run_message(group.queue, remaining.pop(0))
                if isinstance(answer, Nack):
                    # The rest of a FIFO group may not overtake this message.
                    delay = answer.delay or 0.0
                    break
        finally:
            group.queue.in_flight.requeue_unrun(remaining, delay)
            self._prefetch.group_ended(len(remaining))

    def _may_start(self, group: MessageGroup, remaining: list[Received]) -> bool:
        is_first = len(remaining) == len(group.messages)
        if not is_first and not self._prefetch.may_continue_group():
            return False
        if (spoiled := why_spoiled()) is not None:
            self.spoiled, self._prefetch.is_closed = spoiled, True
            return False
        if remaining[0].is_hidden:
            return True
        logger.warning(
            "skipped id=%s error=the visibility timeout has ended",
            quoted(task_id_of(remaining[0])),
        )
        return False

    def _run_message(self, queue: QueueState, message: Received) -> Ack | Nack:
        """Run one message, and note its runner's answer for SQS."""
        thread_id, started = threading.get_ident(), clock.monotonic()
        answer: Ack | Nack = Nack()
        if self._heartbeat:
            queue.in_flight.set_deadline(message)
        self.running[thread_id] = (queue, message)
        try:
            answer = self._runner(message, partial(queue.in_flight.set_deadline, message))
        except BaseException as exc:
            logger.exception(
                "runner failed id=%s error=%s", quoted(task_id_of(message)), type(exc).__name__
            )
        finally:
            del self.running[thread_id]
            is_done = isinstance(answer, Ack) and not answer.is_failure
            self._prefetch.task_ended(clock.monotonic() - started, is_done=is_done)
            if isinstance(answer, Ack):
                queue.in_flight.ack(message)
            else:
                queue.in_flight.nack(message, answer.delay)
        return answer
