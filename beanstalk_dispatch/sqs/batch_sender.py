"""BatchSender: sends many messages to one queue in full batches, several batches at a time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .error_codes import Scope
from .errors import boto_errors, first_line, scope_of_entry
from .quotas import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES

BATCH_ATTEMPTS: Final = 4
"""The number of times that an entry is sent if SQS refuses it for a reason of its own."""

MAX_SERIAL_BATCHES: Final = 3
"""The number of batches that are sent one after the other: threads would save little time."""

MAX_PARALLEL_BATCHES: Final = 12
"""The number of batches that are sent at a time.

More threads of one process only wait for its CPU: 1,000 messages at 5 ms to SQS take 126 ms with 8
threads, 88 ms with 12, and 87 ms with 16.
"""

NOT_LISTED: Final[Mapping[str, Any]] = {"SenderFault": False, "Code": "missing in SQS's answer"}
"""The failure of an entry that the answer lists neither as Successful nor as Failed."""

NOT_TRIED: Final = "not tried, because an earlier message was not sent"
"""The reason for an entry that would have overtaken another one of its FIFO queue."""


class BatchEntry(Protocol):
    """One message of a batch to send; its size and parameters are already checked."""

    @property
    def body(self) -> str:
        """Return the body."""

    @property
    def send_parameters(self) -> Mapping[str, Any]:
        """Return SendMessage's parameters besides the body: see ``parameters.send_parameters``."""


@dataclass(slots=True, kw_only=True)
class Sent:
    """The result of a batch: in the end each position is in exactly one of the two mappings."""

    ids: dict[int, str] = field(default_factory=dict)
    """The SQS message id of each sent entry, by its position."""
    unsent: dict[int, str] = field(default_factory=dict)
    """The reason of each entry that was not sent, by its position."""
    refused: set[int] = field(default_factory=set)
    """The positions of the entries that SQS refuses although it may take others."""
    cause: Exception | None = None
    """botocore's error, if a request failed as a whole."""


class BatchSender:
    """The sending of the entries of one ``Queue.send_batch``."""

    def __init__(
        self, entries: Sequence[BatchEntry], *,
        request: Callable[[list[Any]], Mapping[str, Any]],
        reason_of: Callable[[Exception], str],
        keeps_order: bool,
    ) -> None:  # fmt: skip
        self._entries = entries
        self._request = request
        """The function that sends one SendMessageBatch and returns SQS's answer."""
        self._reason_of = reason_of
        self._keeps_order = keeps_order
        self._batches = list(batches(entries))
        self._next_batch = 0
        self._lock = threading.Lock()
        self._stop_reason = ""
        """The reason why no further request is begun; empty if there is none."""
        self._thread_error: BaseException | None = None
        self._sent = Sent()

    def send(self) -> Sent:
        """Send all entries. See ``Queue.send_batch``."""
        if self._keeps_order or len(self._batches) <= MAX_SERIAL_BATCHES:
            self._send_batches()
        else:
            self._send_in_parallel()
        for position in range(len(self._entries)):
            if position not in self._sent.ids:
                self._sent.unsent.setdefault(position, self._stop_reason)
        self._sent.unsent = dict(sorted(self._sent.unsent.items()))
        return self._sent

    def _send_in_parallel(self) -> None:
        """Send batches in this thread and in others, until all threads have ended."""
        threads: list[threading.Thread] = []
        try:
            for _ in range(min(MAX_PARALLEL_BATCHES, len(self._batches)) - 1):
                run = copy_context().run  # traces of the requests belong to the caller's
                thread = threading.Thread(target=run, args=(self._send_batches_in_thread,))
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending, or has no more threads
                    break
                threads.append(thread)
            self._send_batches()
        finally:
            self._stop_reason = self._stop_reason or "the sending was interrupted"
            for thread in threads:
                thread.join()
        if self._thread_error:
            raise self._thread_error

    def _send_batches_in_thread(self) -> None:
        try:
            self._send_batches()
        except BaseException as exc:  # raised again in the caller's thread
            self._stop_reason = self._stop_reason or repr(exc)
            self._thread_error = exc

    def _send_batches(self) -> None:
        """Send batch after batch, until none is left or a reason to stop was found."""
        while (positions := self._take_batch()) is not None:
            try:
                self._send_batch(positions)
            except boto_errors() as exc:
                reason = self._reason_of(exc)
                self._sent.cause = self._sent.cause or exc
                self._stop_reason = self._stop_reason or reason
                for position in positions:
                    if position not in self._sent.ids:
                        self._sent.unsent.setdefault(position, reason)
            if self._keeps_order and self._sent.unsent:
                self._stop_reason = self._stop_reason or NOT_TRIED

    def _take_batch(self) -> list[int] | None:
        with self._lock:
            if self._stop_reason or self._next_batch == len(self._batches):
                return None
            self._next_batch += 1
            return self._batches[self._next_batch - 1]

    def _send_batch(self, positions: Sequence[int]) -> None:
        pending, attempt = list(positions), 0
        while pending:
            attempt += 1
            entries = [batch_entry(position, self._entries[position]) for position in pending]
            response = self._request(entries)
            pending = self._read_answer(response, pending, is_last=attempt == BATCH_ATTEMPTS)
            if pending:
                time.sleep(random.uniform(0, 0.1 * 2**attempt))

    def _read_answer(
        self, response: Mapping[str, Any], pending: Sequence[int], *, is_last: bool
    ) -> list[int]:
        """Note the entries that were sent or cannot be. Return the positions to send again."""
        for successful in response.get("Successful", ()):
            self._sent.ids[int(successful["Id"])] = successful["MessageId"]
        failed = {int(each["Id"]): each for each in response.get("Failed", ())}
        again = []
        for position in pending:
            failure: Mapping[str, Any] = failed.get(position, NOT_LISTED)
            if position in self._sent.ids:
                continue
            scope = scope_of_entry(failure)
            if scope is Scope.LATER and not is_last:
                again.append(position)
                continue
            self._sent.unsent[position] = failure_reason(failure)
            if scope is Scope.MESSAGE:
                self._sent.refused.add(position)
            else:
                self._stop_reason = self._stop_reason or failure_reason(failure)
        return again


def failure_reason(failure: Mapping[str, Any]) -> str:
    """Return the reason that SQS's answer to a batch gives for a failed entry."""
    message = first_line(failure.get("Message"))
    return f"{failure['Code']}: {message}" if message else str(failure["Code"])


def batch_entry(position: int, entry: BatchEntry) -> Any:
    """Return the entry of SendMessageBatch whose id is its position."""
    return {"Id": str(position), "MessageBody": entry.body, **entry.send_parameters}


def batches(entries: Sequence[BatchEntry]) -> Iterator[list[int]]:
    """Yield the positions of ``entries``, in runs that each fit into one request."""
    positions: list[int] = []
    size = 0
    for position, entry in enumerate(entries):
        is_full = len(positions) == MAX_BATCH_ENTRIES or size + len(entry.body) > MAX_BATCH_BYTES
        if positions and is_full:
            yield positions
            positions, size = [], 0
        positions.append(position)
        size += len(entry.body)
    if positions:
        yield positions
