"""Sends prepared calls: a list goes in, and one result for each call comes out.

send_one          one call, by SendMessage
send_batches      calls, by SendMessageBatch
send_together     calls of different callers, by one SendMessageBatch
publish           calls, by one of these or in another way, while observers watch
send_what_can_be  calls that have waited: raises nothing, and sends around those refused
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TypeAlias

from beanstalk_dispatch.exceptions import BatchError, MessageTooLarge, SendError
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.observers import Observer, observed
from beanstalk_dispatch.running.definitions.configured import configured_observers
from beanstalk_dispatch.running.kept_results import KEPT_RESULTS
from beanstalk_dispatch.sqs.batch_sender import NOT_TRIED
from beanstalk_dispatch.sqs.error_codes import Scope
from beanstalk_dispatch.sqs.errors import scope_of

from .destination import Destination
from .prepare import Prepared

logger = logging.getLogger("beanstalk_dispatch.scheduling")


@dataclass(frozen=True, slots=True)
class Unsent:
    """The result of a call that was not sent."""

    prepared: Prepared
    reason: str
    scope: Scope = Scope.LATER
    """Whom the reason concerns."""
    error: Exception | None = None
    """The error, if it was the error of a whole request: botocore's, or that of ``send_one``."""

    @property
    def is_refused(self) -> bool:
        """Return True if SQS refuses this call, and may take others of the same request."""
        return self.scope is Scope.MESSAGE and self.error is None


SendResult: TypeAlias = str | Unsent
"""The task id of a call that was sent, or the reason why it was not."""

Send: TypeAlias = Callable[[Destination, Sequence[Prepared]], list[SendResult]]
"""Takes calls and returns their results, in order."""


def send_one(destination: Destination, prepared: Sequence[Prepared]) -> list[SendResult]:
    """Send one call by a request that is cheaper than a batch. Raise UnknownQueue.

    Other threads that send to the queue at the same time may share the request.
    """
    [call] = prepared
    try:
        sqs_id = destination.open().send_joined(call.body, call.send_parameters)
    except SendError as exc:
        return [Unsent(call, str(exc), scope_of(exc), exc)]
    # A message of 0.1 carries no id; its worker knows only SQS's.
    return [sqs_id if destination.is_base64 else call.message.id]


def send_batches(destination: Destination, prepared: Sequence[Prepared]) -> list[SendResult]:
    """Send calls in batches. Raise UnknownQueue, or SendError if the queue cannot be opened."""
    done = destination.open().send_batch(prepared)
    if done.unsent:
        scope = scope_of(done.cause) if done.cause else Scope.LATER
        return [
            _unsent(each, done.unsent[n], scope, done.cause, is_refused=n in done.refused)
            if n in done.unsent
            else done.ids[n]
            if destination.is_base64
            else each.message.id
            for n, each in enumerate(prepared)
        ]
    if destination.is_base64:
        return [done.ids[n] for n in range(len(prepared))]
    return [each.message.id for each in prepared]


def send_together(
    destination: Destination, prepared: Sequence[Prepared]
) -> list[SendResult | None]:
    """Send calls of different callers in one request.

    None stands for a call that is to be sent by ``send_one``. Raise UnknownQueue, or SendError if
    the queue cannot be opened.
    """
    answers = destination.open().send_together(prepared)
    return [
        Unsent(each, str(answer), scope_of(answer), answer)
        if isinstance(answer, SendError)
        else answer and (answer if destination.is_base64 else each.message.id)
        for each, answer in zip(prepared, answers, strict=True)
    ]


def _unsent(
    prepared: Prepared, reason: str, scope: Scope, cause: Exception | None, *, is_refused: bool
) -> Unsent:
    if is_refused:
        return Unsent(prepared, reason, Scope.MESSAGE)
    return Unsent(prepared, reason, scope, cause)


def unsent_among(results: Iterable[SendResult]) -> list[Unsent]:
    """Return the results of the calls that were not sent."""
    return [each for each in results if isinstance(each, Unsent)]


def error_of(results: Sequence[SendResult]) -> SendError | None:
    """Return the error that says which calls were not sent; None if all were."""
    unsent = {n: each for n, each in enumerate(results) if isinstance(each, Unsent)}
    if not unsent:
        return None
    cause = next((each.error for each in unsent.values() if each.error), None)
    if isinstance(cause, SendError):
        return cause
    error = BatchError(
        sent={n: each for n, each in enumerate(results) if isinstance(each, str)},
        unsent={n: each.reason for n, each in unsent.items()},
        refused=[n for n, each in unsent.items() if each.is_refused],
    )
    error.__cause__ = cause
    return error


def log_unsent(destination: Destination, unsent: Iterable[Unsent], *, when: str) -> None:
    """Log calls that were not sent, whose callers do not wait for the error any more."""
    for each in unsent:
        message = each.prepared.message
        logger.error(
            "not sent %s id=%s function=%s queue=%s error=%s",
            when, message.id, quoted(message.function), quoted(destination.name),
            quoted_error(each.reason),
        )  # fmt: skip


# --- while observers watch -------------------------------------------------------------------


def publish(destination: Destination, prepared: Sequence[Prepared], send: Send) -> list[SendResult]:
    """Send calls with the headers of the observers, which see the error that callers get."""
    results: list[SendResult] = []
    error: SendError | None = None
    try:
        with publishing(destination, prepared):
            results = send(destination, prepared)
            error = error_of(results)
            if error:
                raise error
    except SendError:
        if error is None:
            raise
    return results


def publishing(
    destination: Destination, prepared: Sequence[Prepared]
) -> AbstractContextManager[object]:
    """Surround the sending or storing of calls. On entry the observers give them their headers."""
    if observers := configured_observers(destination.config):
        return _with_headers(destination, prepared, observers)
    return nullcontext()


@contextmanager
def _with_headers(
    destination: Destination, prepared: Sequence[Prepared], observers: Sequence[Observer]
) -> Iterator[None]:
    name = destination.address.name
    with observed(observers, "publishing", prepared, name):
        for each in prepared:
            if each.headers:
                _seal_with_headers(destination, each)
        yield


def _seal_with_headers(destination: Destination, prepared: Prepared) -> None:
    message = prepared.message
    message = replace(message, headers={**message.headers, **prepared.headers})
    try:
        prepared.body = destination.seal(message, prepared.text)
    except MessageTooLarge as exc:  # the message goes without them, as it was checked
        logger.warning(
            "message sent without headers id=%s function=%s error=%s",
            message.id, quoted(message.function), quoted_error(exc),
        )  # fmt: skip
    else:
        prepared.message = message


# --- calls that have waited ------------------------------------------------------------------


def send_what_can_be(
    calls: Iterable[tuple[Destination, Sequence[Prepared]]], send: Send
) -> Iterator[tuple[Destination, list[Unsent]]]:
    """Send the calls of several queues, and yield those of each that were not sent. Raise nothing.

    If SQS refuses a whole request because of one of its messages, each is sent by itself, until
    SQS gives another reason. After an error that concerns everybody no further queue is tried.
    With an outbox, where a call that was not sent is sent later, no later message of the same FIFO
    group is sent before it.
    """
    stopped: Unsent | None = None
    for destination, prepared in calls:
        if stopped:
            unsent = [replace(stopped, prepared=each) for each in prepared]
        else:
            unsent = _try(destination, prepared, send)
            is_unclear = any(each.scope is Scope.MESSAGE and each.error for each in unsent)
            if is_unclear and len(prepared) > 1:
                unsent = _try_each(destination, [each.prepared for each in unsent], send)
            stopped = next((each for each in unsent if each.scope is Scope.EVERYBODY), None)
        # A call that is refused now was refused alone, so its request failed because of it.
        yield destination, [replace(each, error=None) for each in unsent]


def _try_each(destination: Destination, prepared: Sequence[Prepared], send: Send) -> list[Unsent]:
    keeps_order = destination.is_fifo and destination.config.uses_outbox
    groups: set[object] = set()
    left: list[Unsent] = []
    stopped: Unsent | None = None
    for each in prepared:
        group = each.send_parameters.get("MessageGroupId")
        if stopped:
            left.append(replace(stopped, prepared=each))
        elif group in groups:
            left.append(Unsent(each, NOT_TRIED))
        elif alone := _try(destination, [each], send):
            left += alone
            groups |= {group} if keeps_order else set()
            stopped = alone[0] if alone[0].scope is not Scope.MESSAGE else None
    return left


def _try(destination: Destination, prepared: Sequence[Prepared], send: Send) -> list[Unsent]:
    try:
        results = send(destination, prepared)
    except Exception as exc:  # no message was sent yet, so none of them is the reason
        scope = scope_of(exc)
        scope = Scope.QUEUE if scope is Scope.MESSAGE else scope
        return [Unsent(each, str(exc), scope) for each in prepared]
    for each, result in zip(prepared, results, strict=True):
        if each.message.unique and result != each.message.id and isinstance(result, str):
            for kept in KEPT_RESULTS:
                kept.note_superseded(
                    destination.config, destination.address.name, each.message, result
                )
    return unsent_among(results)
