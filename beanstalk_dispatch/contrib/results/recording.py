"""Keeps a record of each task while it is scheduled and while it runs.

A store that does not answer costs its own time and a log line. The task runs as without a store.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, cast

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.messages.delivery import RunView
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import UNWANTED, Outcome
from beanstalk_dispatch.messages.shared_cache import CacheEntry, errors_logged
from beanstalk_dispatch.observers import Observer, Publication
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.resuming import PROGRESS
from beanstalk_dispatch.running.coroutines import call_outside_of_loop
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.safe_task import Retry, SafeTask

from .record import (
    HEADERS,
    MAX_ERRORS,
    MAX_RETURN_VALUE,
    SUPERSEDED_HEADER,
    UNKNOWN_WORKER,
    Progress,
    Status,
    TaskFailure,
    TaskRecord,
    from_seconds,
    json_of,
    now,
)
from .stores import GUARD, CacheStore, result_key, store_of

logger = logging.getLogger("beanstalk_dispatch.task")

MAX_UNKNOWN_WORKERS: Final = 1000
"""The number of attempts without a record that may be added. The number comes from the message."""
_PROGRESS_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 10.0

_REFUSED: Final = frozenset({
    Outcome.UNKNOWN_FUNCTION, Outcome.BAD_SIGNATURE, Outcome.MALFORMED,
    Outcome.FAILED, Outcome.TIMED_OUT,
})  # fmt: skip
"""The outcomes of a delivery whose task could not start, and which no other worker runs now."""

_RECORDING: Final = "beanstalk_dispatch.recording"
"""The note of a run that has a record: its Recording while the attempt runs, or else None."""


def worker_id() -> str:
    """Return the host, process and thread that run a task, in fewer than 64 characters."""
    return f"{socket.gethostname()[:32]}:{os.getpid()}:{threading.get_native_id()}"


class Recording:
    """The record of one attempt, from its start to its end, kept in the store if there is one.

    If it is kept in the cache of the lease, the lease reads and writes it in its own requests.
    """

    def __init__(self, delivery: RunView) -> None:
        config = get_config()
        self._delivery = delivery
        self._message = message = cast("Message", delivery.message)
        self._store = store_of(config)
        self._has_queue = not config.execute_synchronously
        self.record = new_record(message, delivery.queue, config)
        self._began_at = now()
        self._next_progress_at = clock.monotonic() + _PROGRESS_SECONDS
        self._is_retry_saved = self._is_success_saved = False
        self._first: TaskRecord | None = None
        self._read_with_lease: Callable[[], TaskRecord | None] | None = None
        self.is_settled = False
        """The task has ended before, and ``record`` is that of its end, which stays."""

    @property
    def is_spent(self) -> bool:
        """True if a Django task has failed permanently before, and its message came again."""
        return self.is_settled and self.record.status is Status.FAILED

    @contextmanager
    def as_current(self) -> Iterator[None]:
        """Have the sending of a retry find this recording while the attempt runs."""
        self._delivery.notes[_RECORDING] = self
        has_record = self._store is not None and not self.is_settled
        before = PROGRESS.set(self._keep_progress if has_record else None)
        try:
            yield
        except BaseException as exc:  # Ctrl-C, or the time limit of a caller
            self._break_off(exc)
            raise
        finally:
            PROGRESS.reset(before)
            self._delivery.notes[_RECORDING] = None  # it keeps its run, which would keep itself

    @property
    def key(self) -> str:
        """Return the key of the record in the cache of the lease."""
        return result_key(self._message.id)

    def first_entry(self) -> CacheEntry:
        """Return the entry of a record that begins with this attempt."""
        self._first = replace(self.record, worker_ids=[])
        self._note_start(self._first)
        return cast("CacheStore", self._store).entry(self._first)

    def read(self, fields: Any, *, is_announced: bool) -> None:
        """Note the fields of the earlier record, and whether ``first_entry`` was written."""
        self._read_with_lease = lambda: None if fields is None else TaskRecord.from_fields(fields)
        if not is_announced:
            self._first = None

    def success_entry(self) -> CacheEntry | None:
        """Return the entry of the success, which is written with the end of the lease."""
        if self.is_settled or self._is_success_saved:
            return None
        self._note_success()
        return cast("CacheStore", self._store).entry(self.record)

    def start(self) -> None:
        """Note that the attempt begins, unless the message only goes to the dead-letter queue."""
        self._delivery.notes[_RECORDING] = None
        is_late = self._delivery.receive_count > 1
        self._continue_record(self._load_record(), unless_announced=is_late)
        if not self.is_settled:
            record = self.record
            runs = self._delivery.outcome is not Outcome.CUT
            missing = self._message.attempt - runs - len(record.worker_ids)
            record.worker_ids += [UNKNOWN_WORKER] * min(missing, MAX_UNKNOWN_WORKERS)
            if not runs:
                return
            self._note_start(record)
        # What has settled stays, also where the lease has just replaced it.
        if self._first != self.record and (self._first or not self.is_settled):
            self._save_record()

    def end(self) -> None:
        """Note the end of the attempt, as ``delivery`` has it.

        Also called if nothing is known of it.
        """
        delivery = self._delivery
        if delivery.outcome is None or (self._is_retry_saved and not delivery.is_final):
            return
        is_over = delivery.is_final or delivery.outcome in UNWANTED
        self._save_end(delivery.outcome, delivery.exception, is_over=is_over)

    def end_cancelled(self) -> None:
        """End the record of a task that was cancelled and does not run."""
        self._delivery.notes[_RECORDING] = None
        self._continue_record(self._load_record(), unless_announced=True)
        self.end()

    def end_refused(self) -> None:
        """End the record of a task that cannot start, unless it has ended before.

        A message that is too old may be a replay, also of a task whose record has expired.
        """
        earlier = self._load_record()
        if earlier is None and self._delivery.outcome is Outcome.BAD_SIGNATURE:
            return
        if earlier is None or not earlier.is_finished:
            self._continue_record(earlier, unless_announced=True)
            self.end()

    def _break_off(self, exc: BaseException) -> None:
        """End the record of an attempt that the process breaks off. Only SQS delivers it again."""
        if self._is_retry_saved and self._has_queue:
            return
        outcome = self._delivery.outcome or Outcome.FAILED
        self._save_end(outcome, exc, is_over=not self._has_queue)

    def _save_end(
        self, outcome: Outcome, exception: BaseException | None, *, is_over: bool
    ) -> None:
        record, is_done = self.record, outcome is Outcome.DONE
        if not (is_done or self._is_success_saved):
            self._settle_if_done(self._load_record())  # by a duplicate that ran at the same time
        if self.is_settled or (is_done and self._is_success_saved):
            return
        if is_done:
            self._note_success()
        else:
            record.status = Status.FAILED if is_over else Status.READY
            if exception is not None and not (
                outcome is Outcome.RETRY and isinstance(exception, Retry)
            ):
                record.errors = [*record.errors, TaskFailure.of(exception)][-MAX_ERRORS:]
            record.finished_at = now() if is_over else None
        self._save_record()

    def _note_start(self, record: TaskRecord) -> None:
        record.worker_ids.append(worker_id())
        record.last_attempted_at = self._began_at
        record.started_at = record.started_at or self._began_at
        record.status = Status.RUNNING

    def _note_success(self) -> None:
        self._is_success_saved = True
        self.record.status = Status.SUCCESSFUL
        self.record.return_value = self._return_value()
        self.record.finished_at = now()

    def retry(self) -> None:
        """Note that the attempt has ended, and that its retry is about to be sent.

        READY is written before that, because the next attempt may begin at once.
        """
        self.end()
        self._is_retry_saved = True

    def announced(self) -> None:
        """Note that ``task_finished`` was sent for a failure.

        If the process is killed before that, the task runs again, and its end is sent then.
        """
        self.record.is_announced = True
        self._save_record()

    def _load_record(self) -> TaskRecord | None:
        """Load the record that another attempt or delivery of the task has left."""
        if self._store is None:
            return None
        read, self._read_with_lease = self._read_with_lease, None
        load = read or functools.partial(self._store.load, self._message.id)
        return GUARD.call(load, self._message.id, what="read")

    def _settle_if_done(self, earlier: TaskRecord | None) -> None:
        """Let the record of a task stay that has succeeded: this is a duplicate of its message."""
        if earlier is not None and earlier.status is Status.SUCCESSFUL:
            self.record, self.is_settled = earlier, True

    def _continue_record(self, earlier: TaskRecord | None, *, unless_announced: bool) -> None:
        """Take over the earlier record. With ``unless_announced`` an announced failure stays."""
        self._settle_if_done(earlier)
        if earlier is None or self.is_settled:
            return
        if earlier.is_announced and unless_announced:
            self.record, self.is_settled = earlier, True
            return
        record = self.record
        record.worker_ids = list(earlier.worker_ids)
        record.errors = list(earlier.errors)
        record.progress = earlier.progress
        record.started_at = earlier.started_at
        record.enqueued_at = earlier.enqueued_at or record.enqueued_at

    def _keep_progress(self, n: float, of: float | None) -> None:
        """Note how far the task is, and save it once a second. Log a wrong value.

        The last one is saved with the end of the attempt.
        """
        with errors_logged(logger, "progress not kept id=%s", self.record.id):
            self.record.progress = Progress.checked(n, of)
        if (time := clock.monotonic()) >= self._next_progress_at:
            save = functools.partial(cast("CacheStore", self._store).save_progress, self.record)
            is_saved = call_outside_of_loop(lambda: GUARD.call(save, self.record.id))
            self._next_progress_at = time + (_PROGRESS_SECONDS if is_saved else _RETRY_SECONDS)

    def _return_value(self) -> object:
        """Return the task's return value, if it can be kept."""
        encoded = json_of(self._delivery.return_value)
        if encoded is None:
            return None
        if self._store is not None and len(encoded) > MAX_RETURN_VALUE:
            logger.warning(
                "return value not kept id=%s function=%s characters=%d",
                quoted(self._message.id), quoted(self._message.function), len(encoded),
            )  # fmt: skip
            return None
        return json.loads(encoded)

    def _save_record(self) -> None:
        if self._store is not None:
            GUARD.call(functools.partial(self._store.save, self.record), self.record.id)


def recording_of(delivery: RunView) -> Recording:
    """Return the recording of an attempt: that of its lease, or its own."""
    shared = cast("Run", delivery).shared_result
    return cast("Recording | None", shared) or Recording(delivery)


def new_record(message: Message, queue: str, config: Config) -> TaskRecord:
    """Return the record of a task that has not run yet."""
    record = TaskRecord(
        id=message.id,
        function=message.function,
        queue=queue,
        enqueued_at=from_seconds(message.sent_at),
        headers={name: message.headers[name] for name in HEADERS if name in message.headers},
    )
    if config.result_arguments:
        record.args, record.kwargs = list(message.args), dict(message.kwargs)
    return record


def note_superseded(config: Config, queue: str, message: Message, holder: str) -> None:
    """Note the id of the task that runs instead of a unique call that is not sent."""
    if (store := store_of(config)) is not None:
        record = new_record(message, queue, config)
        record.headers[SUPERSEDED_HEADER] = holder
        GUARD.call(functools.partial(store.save, record), message.id)


class ResultsObserver(Observer):
    """An observer that keeps the result of every task of the process."""

    @contextmanager
    def publishing(self, publications: Sequence[Publication], queue: str) -> Iterator[None]:
        """Write READY before the send, so that a fast worker is never overwritten."""
        config = get_config()
        store = store_of(config)
        # A worker knows a message in 0.1's format by SQS's id, which is not known yet.
        if store is not None and not config.sends_base64:
            records = [new_record(each.message, queue, config) for each in publications]
            GUARD.call(functools.partial(store.add, records), records[0].id)
        yield

    @contextmanager
    def delivering(self, delivery: RunView) -> Iterator[None]:
        """Write that a task could not start: it is not known here, too old, or cannot be made."""
        yield
        # The calling process has no other worker.
        is_over = delivery.outcome in _REFUSED or delivery.is_final
        if delivery.message and is_over and _RECORDING not in delivery.notes:
            Recording(delivery).end_refused()

    @contextmanager
    def attempting(self, task: SafeTask, delivery: RunView) -> Iterator[None]:
        """Write RUNNING before the attempt, and its outcome after it."""
        recording = recording_of(delivery)
        recording.start()
        with recording.as_current():
            yield
        recording.end()

    @contextmanager
    def retrying(self, delivery: RunView) -> Iterator[None]:
        """Write READY before the retry is sent."""
        recording: Recording | None = delivery.notes.get(_RECORDING)
        if recording is not None:
            recording.retry()
        yield

    @contextmanager
    def cancelling(self, delivery: RunView) -> Iterator[None]:
        """Write that the task was cancelled."""
        Recording(delivery).end_cancelled()
        yield


_OBSERVERS: Final = (ResultsObserver(),)


def observers(config: Config) -> Sequence[Observer]:
    """Return the observer, if results are kept."""
    return () if config.results is None else _OBSERVERS
