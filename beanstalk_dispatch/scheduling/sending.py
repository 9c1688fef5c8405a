"""Sends checked calls: to SQS, or to what stands in for SQS in tests and development."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.dispatch_table import configured_observers
from beanstalk_dispatch.exceptions import BatchError, MessageTooLarge, UnknownFunction
from beanstalk_dispatch.execution import executor
from beanstalk_dispatch.execution.observers import Observer, observed
from beanstalk_dispatch.log_lines import quoted, quoted_error
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.outcomes import Result
from beanstalk_dispatch.sqs.batches import Entry
from beanstalk_dispatch.sqs.opening import open_queue, resolve_address
from beanstalk_dispatch.sqs.parameters import check_size

logger = logging.getLogger("beanstalk_dispatch.scheduling")


@dataclass(slots=True)
class Prepared:
    """A checked call: the message, its body, and SendMessage's parameters for it."""

    message: Message
    body: str = field(repr=False)
    send_parameters: dict[str, Any]


capture: Callable[[str, Prepared], None] | None = None
"""Receives what is scheduled, in place of SQS: see testing.capture_tasks."""


def is_local(config: Config) -> bool:
    """Whether calls are captured or run in this process, so that nothing is sent to SQS."""
    return capture is not None or config.execute_synchronously


def send(queue: str, prepared: Prepared, config: Config) -> str:
    """Send one call and return its task id. Raises SendError."""
    if observers := configured_observers(config):
        with _with_headers(queue, [prepared], config, observers):
            return _send_one(queue, prepared, config)
    return _send_one(queue, prepared, config)


def _send_one(queue: str, prepared: Prepared, config: Config) -> str:
    if is_local(config):
        _send_locally(queue, prepared, config)
    else:
        sqs_id = open_queue(queue).send(prepared.body, prepared.send_parameters)
        if config.message_format == "base64":  # carries no id; the worker knows only SQS's
            return sqs_id
    return prepared.message.id


def send_many(queue: str, prepared: Sequence[Prepared], config: Config) -> list[str]:
    """Send calls in batches and return their task ids in order.

    Raises BatchError. Its ``__cause__`` is botocore's error if a request failed as a whole.
    """
    if observers := configured_observers(config):
        with _with_headers(queue, prepared, config, observers):
            return _send_all(queue, prepared, config)
    return _send_all(queue, prepared, config)


def _send_all(queue: str, prepared: Sequence[Prepared], config: Config) -> list[str]:
    task_ids = {position: each.message.id for position, each in enumerate(prepared)}
    if is_local(config):
        for each in prepared:
            _send_locally(queue, each, config)
        return list(task_ids.values())
    entries = [Entry(body=each.body, send_parameters=each.send_parameters) for each in prepared]
    result = open_queue(queue).send_batch(entries)
    sent_ids = result.ids if config.message_format == "base64" else task_ids
    task_ids = {p: sent_ids[p] for p in task_ids if p not in result.unsent}
    if result.unsent:
        raise BatchError(sent=task_ids, unsent=result.unsent) from result.cause
    return list(task_ids.values())


def _send_locally(queue: str, prepared: Prepared, config: Config) -> None:
    if capture is not None:
        capture(queue, prepared)
    else:
        execute(queue, prepared.body, config)


@contextmanager
def _with_headers(
    queue: str, prepared: Sequence[Prepared], config: Config, observers: Sequence[Observer]
) -> Iterator[Sequence[Prepared]]:
    """``prepared``, with the headers that the observers have given its messages."""
    name = resolve_address(queue, config).name
    with observed(observers, "publishing", lambda each: each.publishing(prepared, name)):
        for each in prepared:
            if each.message.headers:
                _encode_with_headers(each, name, config)
        yield prepared


def _encode_with_headers(prepared: Prepared, queue_name: str, config: Config) -> None:
    try:
        prepared.body = encode(prepared.message, queue_name, config)
    except MessageTooLarge as exc:  # the message goes without them, as it was checked
        logger.warning(
            "message sent without headers id=%s function=%s error=%s",
            prepared.message.id, quoted(prepared.message.function), quoted_error(exc),
        )  # fmt: skip


def encode(message: Message, queue_name: str, config: Config) -> str:
    """The body that SQS gets. Raises InvalidArgument or MessageTooLarge."""
    legacy = config.message_format == "base64"
    body = message.encode(queue=queue_name, keys=config.signing_keys, legacy=legacy)
    check_size(body, function=message.function)
    return body


def execute(queue: str, body: str, config: Config) -> Result:
    """Run a body in this process: the same decode and execution as on a worker, at once.

    Retries run at once, too; the Result is the last one's. Raises UnknownFunction.
    """
    name = resolve_address(queue, config).name
    caller = _CallingProcess(config)
    while True:
        result = executor.run(body, Delivery(queue=name), caller)
        if isinstance(result.exception, UnknownFunction):
            raise result.exception
        if caller.next_body is None:
            return result
        body, caller.next_body = caller.next_body, None


class _CallingProcess:
    """The consumer of BEANSTALK_DISPATCH_EXECUTE_SYNCHRONOUSLY: a retry runs at once."""

    can_hide = False

    def __init__(self, config: Config) -> None:
        self.next_body: str | None = None
        self._config = config

    def resend(self, message: Message, delay: float, delivery: Delivery) -> None:
        message = replace(message, not_before=None)
        keys = self._config.signing_keys
        self.next_body = message.encode(queue=delivery.queue, keys=keys)

    def task_starts(self, time_limit: float) -> None:
        """A task that runs in the caller's own process needs no visibility timeout."""
