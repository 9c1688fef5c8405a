"""Runs the records of one event, one after the other, in the time that the invocation has."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from django.core.signals import request_finished, request_started

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.exceptions import NoTimeLeft
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running import pipeline
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.process_exceptions import all_are_failures
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.unrun_receives import UNRUN

from .event import Record, delivery_of, queue_name

logger = logging.getLogger("beanstalk_dispatch.lambda")

RESERVE_SECONDS: Final = 1.0
"""Seconds of an invocation that are left for the hooks of an interrupted task, and the response."""
_MIN_SECONDS: Final = 0.1
"""Seconds that must be left for another record to be run."""


class LambdaConsumer(DelayedCopies):
    """The consumer of one invocation, as a run sees it.

    Retries are delayed copies, as at the endpoint.
    """

    def __init__(self, *, seconds: float) -> None:
        """Start the time in which the tasks may run: ``seconds`` for all of them."""
        self._seconds = seconds
        self.deadline = clock.monotonic() + seconds
        """The time at which the last task must have ended, on the package's monotonic clock."""
        self._has_started = False

    @property
    def seconds_left(self) -> float:
        """The seconds that the next task may take."""
        return self.deadline - clock.monotonic()

    def task_starts(self, time_limit: float) -> None:
        """Raise NoTimeLeft if the task should not start in this invocation.

        The first task always starts. Another one starts if its whole time limit is left or, where
        no invocation has so much time, in the first half. So a task is interrupted before its own
        limit only if a new invocation could not help, and a short one does not wait for nothing.
        """
        needed = time_limit if time_limit <= self._seconds else self._seconds / 2
        if self._has_started and self.seconds_left < needed:
            raise NoTimeLeft(
                f"its time limit is {time_limit:g} s, and {max(self.seconds_left, 0):.0f} s of the "
                "invocation are left"
            )
        self._has_started = True


class Batch:
    """The records of one event."""

    def __init__(self, records: Sequence[Record], *, seconds: float) -> None:
        """Prepare to run the records within ``seconds``: until Lambda ends the invocation."""
        self._records = records
        self._consumer = LambdaConsumer(seconds=max(seconds - RESERVE_SECONDS, _MIN_SECONDS))
        self._reported: list[str] = []
        self._stopped_groups: set[str | None] = set()
        self._unstarted = 0

    def run(self) -> list[str]:
        """Run the records, and return the ids of the messages that SQS is to deliver again.

        After the first message of a FIFO group that is not done, the rest of the group is not
        started, so that its order is kept.
        """
        started = time.monotonic()
        for record in self._records:
            if not self._run_or_skip(record):
                self._reported.append(record["messageId"])
        logger.info(
            "batch queue=%s records=%d reported=%d unstarted=%d ms=%.0f",
            quoted(queue_name(self._records[0]) if self._records else None),
            len(self._records),
            len(self._reported),
            self._unstarted,
            (time.monotonic() - started) * 1000,
        )
        return self._reported

    def _run_or_skip(self, record: Record) -> bool:
        """Run the task of a record if there is time. Return True if its message is done with."""
        keeps_order = is_fifo(queue_name(record))
        group = record.get("attributes", {}).get("MessageGroupId") if keeps_order else None
        if self._consumer.seconds_left < _MIN_SECONDS or group in self._stopped_groups:
            is_acknowledged = False
            self._unstarted += 1
            UNRUN.note(delivery_of(record, deadline=self._consumer.deadline))
        else:
            is_acknowledged = self._run_record(record)
        if keeps_order and not is_acknowledged:
            self._stopped_groups.add(group)
        return is_acknowledged

    def _run_record(self, record: Record) -> bool:
        """Run a message between Django's signals for the start and end of a request.

        At them Django closes the database connections that are unusable or too old.
        """
        delivery = delivery_of(record, deadline=self._consumer.deadline)
        request_started.send_robust(sender=Batch)
        try:
            # A SystemExit of a task in this main thread must not end the rest of the batch.
            with all_are_failures():
                result = pipeline.run_delivery(Run(delivery, get_config(), self._consumer))
        except BaseException as exc:  # nor may a fault of this package
            logger.error(
                "record failed id=%s error=%s", quoted(delivery.message_id),
                quoted_error(exc, with_type=True), exc_info=exc,
            )  # fmt: skip
            return False
        finally:
            request_finished.send_robust(sender=Batch)
        self._unstarted += result.outcome is Outcome.OVERDUE
        return result.is_acknowledged
