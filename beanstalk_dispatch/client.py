"""schedule_function and its kin: check a call, encode it, hand it to SQS."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, transaction

from .conf import SETTINGS, Config, get_config
from .exceptions import BatchError, InvalidCall, UnknownFunction, listed
from .execution.quietly import quietly
from .message import NAME_FORM, Message, is_name, now
from .signals import task_scheduled
from .sqs.fifo import queue_rules
from .sqs.opening import open_queue, resolve_address
from .sqs.parameters import check_size, send_parameters
from .sqs.queue import Entry
from .sqs.quotas import MAX_DELAY_SECONDS

if TYPE_CHECKING:
    from .outcomes import Result
    from .safe_task import SafeTask

logger = logging.getLogger("beanstalk_dispatch.scheduling")

_Publishing = Callable[..., AbstractContextManager[Sequence[str]]]


@dataclass(slots=True)
class Call:
    """One call of a listed function, with how SQS should deliver it. No argument is in its repr.

    ``function``: a name in the dispatch table, or a function, SafeTask subclass or SafeTask
    instance whose dotted path the table lists. ``args`` and ``kwargs``: JSON values.
    ``delay``: seconds or a timedelta. ``group_id``: the FIFO message group, or on a standard
    queue the fair-queue tenant
    (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html).
    ``deduplication_id``: FIFO only; the task id by default.
    """

    function: str | Callable[..., Any] | SafeTask
    args: Sequence[Any] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    delay: float | timedelta = field(default=0, kw_only=True)
    group_id: str | None = field(default=None, kw_only=True)
    deduplication_id: str | None = field(default=None, kw_only=True)


def schedule_function(
    queue: str, function: str | Callable[..., Any] | SafeTask, /, *args: Any, **kwargs: Any
) -> str:
    """Run ``function`` with these arguments on a worker of ``queue``; returns the task's id.

    ``queue`` is an alias of BEANSTALK_DISPATCH_QUEUES (without any: a queue's name, URL or
    ARN); ``function`` as in Call. Raises a SchedulingError or UnknownFunction; if it returns,
    SQS has the message, or will get it when the transaction commits
    (BEANSTALK_DISPATCH_ON_COMMIT).
    """
    return schedule(queue, Call(function, args, kwargs))


def schedule(queue: str, call: Call, *, on_commit: bool | str | None = None) -> str:
    """Schedule one Call; returns the task's id.

    ``on_commit``: True or a database alias sends after that database's transaction commits,
    and not at all if it rolls back; None does what BEANSTALK_DISPATCH_ON_COMMIT says. What
    cannot be sent then is logged with its id: nobody waits for an error any more, and one raised
    would keep Django from all that still waits for the same commit. Outside of a transaction
    there is nothing to wait for.
    """
    config = get_config()
    prepared = _prepare(queue, call, config)
    if alias := _awaited_commit(on_commit, config):
        send = functools.partial(after_commit, queue, [prepared], config)
        transaction.on_commit(send, using=alias)
        return prepared.message.id
    return _send(queue, prepared, config)


def schedule_many(
    queue: str, calls: Sequence[Call], *, on_commit: bool | str | None = None
) -> list[str]:
    """Schedule ``calls`` in batches; returns their ids in order.

    Every call is checked before the first is sent. Raises BatchError if some were not sent. What
    SQS takes only when it is asked again comes after the rest of its batch of ten, on a FIFO
    queue too. ``on_commit`` as in ``schedule``.
    """
    config = get_config()
    prepared = [_prepare(queue, call, config) for call in calls]
    if prepared and (alias := _awaited_commit(on_commit, config)):
        send = functools.partial(after_commit, queue, prepared, config)
        transaction.on_commit(send, using=alias)
        return [each.message.id for each in prepared]
    return _send_many(queue, prepared, config)


async def aschedule_function(
    queue: str, function: str | Callable[..., Any] | SafeTask, /, *args: Any, **kwargs: Any
) -> str:
    """``schedule_function``, awaitable."""
    return await aschedule(queue, Call(function, args, kwargs))


async def aschedule(queue: str, call: Call, *, on_commit: bool | str | None = None) -> str:
    """``schedule``, awaitable."""
    return await sync_to_async(schedule)(queue, call, on_commit=on_commit)


async def aschedule_many(
    queue: str, calls: Sequence[Call], *, on_commit: bool | str | None = None
) -> list[str]:
    """``schedule_many``, awaitable."""
    return await sync_to_async(schedule_many)(queue, calls, on_commit=on_commit)


outbox: Callable[[str, Prepared], None] | None = None
"""Takes what is scheduled, in place of SQS: see testing.capture_tasks."""


@dataclass(slots=True)
class Prepared:
    """A checked call: the message, its body, and SendMessage's parameters for it."""

    message: Message
    body: str
    send_parameters: dict[str, Any]


def _prepare(queue: str, call: Call, config: Config) -> Prepared:
    if not isinstance(call.kwargs, dict | Mapping):
        raise InvalidCall(_ARGUMENTS)
    message = Message(
        function=_name(call.function, config),
        args=call.args if isinstance(call.args, list | tuple) else _listed(call.args),
        kwargs=call.kwargs,
        sent_at=now(),
        options={} if isinstance(call.function, str) else _options(call.function),
    )
    delay = _delay(call.delay) if call.delay else 0
    if delay > MAX_DELAY_SECONDS:
        message = replace(message, not_before=round(time.time() + delay, 3))
        delay = MAX_DELAY_SECONDS
    parameters: dict[str, Any] = {}
    is_local = config.execute_synchronously or outbox
    address = resolve_address(queue, config) if is_local else open_queue(queue).address
    if delay or call.group_id or call.deduplication_id or queue_rules(address.name).needs_group_id:
        parameters = send_parameters(
            address,
            delay=delay,
            group_id=call.group_id,
            deduplication_id=call.deduplication_id,
            message_id=message.id,
        )
    legacy = config.message_format == "base64"
    if legacy and message.not_before is not None:
        raise InvalidCall(
            f"{message.function}: a delay beyond {MAX_DELAY_SECONDS} s needs "
            f"{SETTINGS['message_format'].variable}=json; 0.1 workers would run it too early"
        )
    body = message.encode(queue=address.name, keys=config.signing_keys, legacy=legacy)
    check_size(body, function=message.function)
    return Prepared(message, body, parameters)


_ARGUMENTS = "args is a list or tuple, kwargs a dict; Call(function, [1], {'a': 2})"


def _listed(args: object) -> list[Any]:
    if isinstance(args, Iterable) and not isinstance(args, str | bytes | Mapping):
        return list(args)
    raise InvalidCall(_ARGUMENTS)


def _send(queue: str, prepared: Prepared, config: Config) -> str:
    if publishing := _publishing(config):
        with quietly(_published(publishing, queue, [prepared], config), [prepared]) as published:
            return _send_one(queue, published[0], config)
    return _send_one(queue, prepared, config)


def _send_one(queue: str, prepared: Prepared, config: Config) -> str:
    message = prepared.message
    task_id = message.id
    if outbox:
        outbox(queue, prepared)
    elif config.execute_synchronously:
        execute(queue, prepared.body, config)
    else:
        sqs_id = open_queue(queue).send(prepared.body, prepared.send_parameters)
        if config.message_format == "base64":  # carries no id; the worker knows only SQS's
            task_id = sqs_id
    _announce(task_id, message, queue)
    return task_id


def _send_many(queue: str, prepared: Sequence[Prepared], config: Config) -> list[str]:
    if publishing := _publishing(config):
        with quietly(_published(publishing, queue, prepared, config), prepared) as published:
            return _send_all(queue, published, config)
    return _send_all(queue, prepared, config)


def _send_all(queue: str, prepared: Sequence[Prepared], config: Config) -> list[str]:
    task_ids = {position: each.message.id for position, each in enumerate(prepared)}
    unsent: dict[int, str] = {}
    if outbox or config.execute_synchronously:
        for each in prepared:
            if outbox:
                outbox(queue, each)
            else:
                execute(queue, each.body, config)
    else:
        entries = [Entry(body=each.body, send_parameters=each.send_parameters) for each in prepared]
        result = open_queue(queue).send_batch(entries)
        unsent = result.unsent
        sent_ids = result.ids if config.message_format == "base64" else task_ids
        task_ids = {p: sent_ids[p] for p in task_ids if p not in unsent}
    for position, task_id in task_ids.items():
        _announce(task_id, prepared[position].message, queue)
    if unsent:
        raise BatchError(sent=task_ids, unsent=unsent)
    return list(task_ids.values())


def after_commit(queue: str, prepared: Sequence[Prepared], config: Config) -> None:
    """What waits for a commit."""
    try:
        _send_many(queue, prepared, config)
    except Exception as exc:
        unsent = exc.unsent if isinstance(exc, BatchError) else range(len(prepared))
        for position in unsent:
            message = prepared[position].message
            logger.error(
                "not sent after its commit id=%s function=%s queue=%s: %s",
                message.id, message.function, queue, exc,
            )  # fmt: skip


@functools.lru_cache(maxsize=1)
def _publishing(config: Config) -> _Publishing | None:
    """What the configured class surrounds sending with; None for SafeTask's own."""
    if config.sources["safe_task"] == "default":
        return None
    from .dispatch_table import safe_task_class
    from .safe_task import SafeTask

    try:
        publishing: Any = safe_task_class(config).publishing
    except Exception as exc:  # the worker's fault to have, and the checks' to tell
        logger.error("messages are sent as they are: %s", exc)
        return None
    own: Any = SafeTask.publishing
    return None if getattr(publishing, "__func__", None) is own.__func__ else publishing


@contextmanager
def _published(
    publishing: _Publishing, queue: str, prepared: Sequence[Prepared], config: Config
) -> Iterator[Sequence[Prepared]]:
    """``prepared`` with the bodies that ``publishing`` yields."""
    name = resolve_address(queue, config).name

    def encode(message: Message) -> str:
        legacy = config.message_format == "base64"
        body = message.encode(queue=name, keys=config.signing_keys, legacy=legacy)
        check_size(body, function=message.function)
        return body

    messages = [each.message for each in prepared]
    with publishing(messages, queue=name, encode=encode) as bodies:
        yield [replace(each, body=body) for each, body in zip(prepared, bodies, strict=True)]


def _announce(task_id: str, message: Message, queue: str) -> None:
    if task_scheduled.receivers:
        task_scheduled.send_robust(
            sender=schedule, task_id=task_id, function=message.function, queue=queue
        )


def execute(queue: str, body: str, config: Config) -> Result:
    """Run a body in this process: the same decode and execution as on a worker, at once.

    Retries run at once, too; the Result is the last one's. Raises UnknownFunction.
    """
    from .delivery import Delivery
    from .execution import executor as execution

    pending = [body]
    name = resolve_address(queue, config).name

    def resend(message: Message, delay: float, delivery: Delivery) -> None:
        message = replace(message, not_before=None)
        pending.append(message.encode(queue=name, keys=config.signing_keys))

    while True:
        result = execution.run(pending.pop(), Delivery(queue=name), resend=resend)
        if isinstance(result.exception, UnknownFunction):
            raise result.exception
        if not pending:
            return result


def _awaited_commit(on_commit: bool | str | None, config: Config) -> str | None:
    """The database alias whose transaction is to be waited for, if there is one."""
    if on_commit is None:
        on_commit = config.on_commit
    if not on_commit:
        return None
    alias = on_commit if isinstance(on_commit, str) else DEFAULT_DB_ALIAS
    connection = transaction.get_connection(alias)
    # Without autocommit on_commit() raises what is wrong with that.
    return alias if connection.in_atomic_block or not connection.get_autocommit() else None


def _delay(delay: float | timedelta) -> int:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidCall(f"delay {delay!r} is not a number of seconds or a timedelta")
    if not 0 <= seconds < 2**31:
        raise InvalidCall(f"delay {delay!r} is out of range; 0 seconds or more")
    return math.ceil(seconds)


# --- naming the function ---------------------------------------------------------------------


def _name(function: str | Callable[..., Any] | SafeTask, config: Config) -> str:
    """The table name of ``function``. Raises UnknownFunction."""
    if isinstance(function, str):
        if config.table and function not in config.table:
            raise UnknownFunction(
                f"{function!r} is not in {SETTINGS['table'].variable}; known: "
                f"{listed(config.table)}"
            )
        if not is_name(function):
            raise InvalidCall(f"function {function[:100]!r} is not {NAME_FORM}")
        return function
    path = _path(function)
    name = _names_by_path(config).get(path)
    if name is None:
        raise UnknownFunction(
            f"no name in {SETTINGS['table'].variable} stands for {path}; known: "
            f"{listed([f'{name}={path}' for name, path in config.table.items()])}"
        )
    return name


@functools.lru_cache(maxsize=1)
def _names_by_path(config: Config) -> dict[str, str]:
    return {path: name for name, path in config.table.items()}


def _path(function: Callable[..., Any] | SafeTask) -> str:
    from .safe_task import SafeTask

    target = (
        vars(function).get("run", type(function)) if isinstance(function, SafeTask) else function
    )
    target = inspect.unwrap(target)
    name = getattr(target, "__qualname__", None)
    return f"{target.__module__}.{name}" if name else f"a {type(target).__name__}"


def _options(function: Callable[..., Any] | SafeTask) -> dict[str, Any]:
    from .safe_task import SafeTask

    return function.options() if isinstance(function, SafeTask) else {}
