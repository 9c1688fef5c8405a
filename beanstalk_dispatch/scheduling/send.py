"""Sends checked calls: to SQS, or to what stands in for SQS in tests and development."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.exceptions import BatchError, MessageTooLarge, UnknownFunction
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Result
from beanstalk_dispatch.observers import Observer, observed
from beanstalk_dispatch.running import pipeline
from beanstalk_dispatch.running.dispatch_table import configured_observers
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.sqs.batch_sender import NOT_TRIED, BatchEntry
from beanstalk_dispatch.sqs.errors import Scope, scope_of
from beanstalk_dispatch.sqs.fifo import queue_rules
from beanstalk_dispatch.sqs.opening import open_queue, resolve_address
from beanstalk_dispatch.sqs.parameters import check_size

logger = logging.getLogger("beanstalk_dispatch.scheduling")


@dataclass(slots=True)
class Prepared:
    """A checked call: the message, its body, and SendMessage's parameters for it."""

    message: Message
    body: str = field(repr=False)
    send_parameters: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    """What observers add to the message's headers when it is sent."""


capture: Callable[[str, Prepared], None] | None = None
"""Receives what is scheduled, in place of SQS: see testing.capture_tasks."""


def is_local(config: Config) -> bool:
    """Whether calls are captured or run in this process, so that nothing is sent to SQS."""
    return capture is not None or config.execute_synchronously


def send(queue: str, prepared: Prepared, config: Config) -> str:
    """Send one call and return its task id. Raises SendError."""
    with publishing(queue, [prepared], config):
        if is_local(config):
            _send_locally(queue, prepared, config)
        else:
            sqs_id = open_queue(queue).send(prepared.body, prepared.send_parameters)
            if config.sends_base64:  # carries no id; the worker knows only SQS's
                return sqs_id
        return prepared.message.id


def send_many(queue: str, prepared: Sequence[Prepared], config: Config) -> list[str]:
    """Send calls in batches and return their task ids in order.

    Raises BatchError. Its ``__cause__`` is botocore's error if a request failed as a whole.
    """
    with publishing(queue, prepared, config):
        return send_published(queue, prepared, config)


def send_published(queue: str, prepared: Sequence[Prepared], config: Config) -> list[str]:
    """``send_many`` for calls whose publishing the observers have seen."""
    task_ids = {position: each.message.id for position, each in enumerate(prepared)}
    if is_local(config):
        for each in prepared:
            _send_locally(queue, each, config)
        return list(task_ids.values())
    entries = [
        BatchEntry(body=each.body, send_parameters=each.send_parameters) for each in prepared
    ]
    result = open_queue(queue).send_batch(entries)
    sent_ids = result.ids if config.sends_base64 else task_ids
    task_ids = {p: sent_ids[p] for p in task_ids if p not in result.unsent}
    if result.unsent:
        raise BatchError(
            sent=task_ids, unsent=result.unsent, refused=result.refused
        ) from result.cause
    return list(task_ids.values())


SendMany = Callable[[str, Sequence[Prepared], Config], list[str]]
"""Sends calls to the queue of that name, and returns their task ids. Raises BatchError."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """A call that was not sent."""

    prepared: Prepared
    reason: str
    scope: Scope = Scope.LATER
    """Whom the reason concerns."""


def try_to_send_all(
    calls: Iterable[tuple[str, Config, Sequence[Prepared]]], send_many: SendMany
) -> Iterator[tuple[str, Config, list[Unsent]]]:
    """Send the calls of several queues as ``try_to_send`` does, and yield the rest of each queue.

    After an error that concerns everybody no further queue is tried.
    """
    stopped = None
    for queue, config, prepared in calls:
        if stopped:
            unsent = [replace(stopped, prepared=each) for each in prepared]
        else:
            unsent = try_to_send(queue, prepared, config, send_many, is_kept=config.uses_outbox)
            stopped = next((each for each in unsent if each.scope is Scope.EVERYBODY), None)
        yield queue, config, unsent


def try_to_send(
    queue: str, prepared: Sequence[Prepared], config: Config, send_many: SendMany, *,
    is_kept: bool,
) -> list[Unsent]:  # fmt: skip
    """Send what can be sent, and return the rest with the reasons. Raises nothing.

    If SQS refuses a whole request because of one of its messages, each is sent by itself, until
    SQS gives another reason. With ``is_kept`` what is not sent will be sent later; then no later
    message of the same FIFO group is sent before it.
    """
    unsent, scope = _try_together(queue, prepared, config, send_many)
    if len(prepared) == 1 or scope is not Scope.MESSAGE:
        return unsent
    keeps_order = is_kept and queue_rules(resolve_address(queue, config).name).keeps_order
    groups: set[object] = set()
    left: list[Unsent] = []
    stopped = None
    for each in unsent:
        group = each.prepared.send_parameters.get("MessageGroupId")
        if stopped:
            left.append(replace(stopped, prepared=each.prepared))
        elif group in groups:
            left.append(Unsent(each.prepared, NOT_TRIED))
        elif alone := _try_together(queue, [each.prepared], config, send_many)[0]:
            left += alone
            groups |= {group} if keeps_order else set()
            stopped = alone[0] if alone[0].scope is not Scope.MESSAGE else None
    return left


def _try_together(
    queue: str, prepared: Sequence[Prepared], config: Config, send_many: SendMany
) -> tuple[list[Unsent], Scope]:
    """Return what was not sent, and whom the error of a whole request concerns."""
    try:
        send_many(queue, prepared, config)
    except BatchError as exc:
        scope = scope_of(exc)
        scopes = dict.fromkeys(exc.refused, Scope.MESSAGE)
        return [
            Unsent(prepared[position], reason, scopes.get(position, scope))
            for position, reason in exc.unsent.items()
        ], scope
    except Exception as exc:  # no message was sent yet, so none of them is the reason
        scope = scope_of(exc)
        scope = Scope.QUEUE if scope is Scope.MESSAGE else scope
        return [Unsent(each, str(exc), scope) for each in prepared], scope
    return [], Scope.LATER


def _send_locally(queue: str, prepared: Prepared, config: Config) -> None:
    if capture is not None:
        capture(queue, prepared)
    else:
        execute(queue, prepared.body, config)


def publishing(
    queue: str, prepared: Sequence[Prepared], config: Config
) -> AbstractContextManager[object]:
    """Surrounds the sending or storing of calls. On entry the observers give them their headers."""
    if observers := configured_observers(config):
        return _with_headers(queue, prepared, config, observers)
    return nullcontext()


@contextmanager
def _with_headers(
    queue: str, prepared: Sequence[Prepared], config: Config, observers: Sequence[Observer]
) -> Iterator[None]:
    address = resolve_address(queue, config)
    with observed(observers, "publishing", lambda each: each.publishing(prepared, address.name)):
        for each in prepared:
            if each.headers:
                _encode_with_headers(each, address, config)
        yield


def _encode_with_headers(prepared: Prepared, address: QueueAddress, config: Config) -> None:
    message = prepared.message
    message = replace(message, headers={**message.headers, **prepared.headers})
    try:
        prepared.body = encode(message, address, config)
    except MessageTooLarge as exc:  # the message goes without them, as it was checked
        logger.warning(
            "message sent without headers id=%s function=%s error=%s",
            message.id, quoted(message.function), quoted_error(exc),
        )  # fmt: skip
    else:
        prepared.message = message


def encode(message: Message, address: QueueAddress, config: Config) -> str:
    """The body that SQS gets. Raises InvalidArgument or MessageTooLarge."""
    body = message.encode(
        queue=address.name,
        keys=config.signing_keys,
        legacy=config.sends_base64,
        location=address.location if config.signing_keys else None,
    )
    check_size(body, function=message.function)
    return body


def execute(queue: str, body: str, config: Config) -> tuple[Run, Result]:
    """Run a body in this process: the same decode and stages as on a worker, at once.

    Retries run at once, too; the run and its Result are the last ones. Raise UnknownFunction.
    """
    address = resolve_address(queue, config)
    caller = _CallingProcess(config)
    while True:
        delivery = Delivery(body=body, queue=address.name, location=address.location)
        run = Run(delivery, config, caller)
        result = pipeline.run_delivery(run)
        if isinstance(run.exception, UnknownFunction):
            raise run.exception
        if caller.next_body is None:
            return run, result
        body, caller.next_body = caller.next_body, None


class _CallingProcess:
    """The consumer of BEANSTALK_DISPATCH_EXECUTE_SYNCHRONOUSLY: a retry runs at once."""

    can_hide = False

    def __init__(self, config: Config) -> None:
        self.next_body: str | None = None
        self._config = config

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        message = replace(message, not_before=None)
        self.next_body = message.encode(
            queue=delivery.queue, keys=self._config.signing_keys, location=delivery.location
        )

    def task_starts(self, time_limit: float) -> None:
        """A task that runs in the caller's own process needs no visibility timeout."""
