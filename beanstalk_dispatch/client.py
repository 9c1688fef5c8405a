"""schedule_function and its family: check a call, encode it, and send it to SQS."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, transaction

from . import marks
from .conf import Config, get_config
from .conf.variables import MESSAGE_FORMAT, TABLE, TASKS
from .dispatch_table import is_listed
from .exceptions import BatchError, InvalidCall, SchedulingError, UnknownFunction, listed
from .execution.task_options import options_to_send
from .log_lines import quoted, quoted_error
from .message import MAX_DELAY_DAYS, NAME_FORM, Message, is_name, now
from .safe_task import SafeTask
from .scheduling import call_check, commits, outbox, sending
from .scheduling.batching import Batch, Collecting, open_batches
from .scheduling.sending import Prepared, Unsent
from .scheduling.threads import sending_executor
from .signals import task_scheduled
from .sqs.fifo import queue_rules
from .sqs.opening import open_queue, resolve_address
from .sqs.parameters import send_parameters
from .sqs.quotas import MAX_DELAY_SECONDS
from .sqs.warming import no_fork, warm_queues


class NamedByPath(Protocol):
    """A Task of django.tasks. Its name is its dotted path, unless the table lists that path."""

    @property
    def module_path(self) -> str:
        """As in ``shop.tasks.send_welcome``."""


Function: TypeAlias = "str | Callable[..., Any] | SafeTask | NamedByPath"
"""What ``schedule_function`` takes: see ``Call.function``."""

logger = logging.getLogger("beanstalk_dispatch.scheduling")


@dataclass(slots=True)
class Call:
    """One call of a listed task, with how SQS should deliver it. No argument is in its repr."""

    function: Function
    """A name in the dispatch table; a function, SafeTask subclass or SafeTask instance whose dotted
    path the table lists; or a Django ``@task`` that may run."""
    args: Sequence[Any] = field(default=(), repr=False)
    """JSON values."""
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """JSON values by name."""
    delay: float | timedelta = field(default=0, kw_only=True)
    """Seconds, or a timedelta."""
    group_id: str | None = field(default=None, kw_only=True)
    """The message group of a FIFO queue, or the tenant of a fair queue.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
    """
    deduplication_id: str | None = field(default=None, kw_only=True)
    """For FIFO queues only. The task id by default."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, kw_only=True)
    """Strings that travel with the message. An observer reads them in ``message.headers``."""
    sent_at: float | None = field(default=None, kw_only=True)
    """When the task was scheduled, in Unix seconds. The present time by default."""


def schedule_function(queue: str, function: Function, /, *args: Any, **kwargs: Any) -> str:
    """Run ``function`` with these arguments on a worker of ``queue``; returns the task's id.

    ``queue`` is an alias of BEANSTALK_DISPATCH_QUEUES (without any: a queue's name, URL or
    ARN); ``function`` as in Call. Raises a SchedulingError or UnknownFunction. If it returns,
    SQS has the message, or will get it: after the transaction commits
    (BEANSTALK_DISPATCH_ON_COMMIT), from the outbox (BEANSTALK_DISPATCH_OUTBOX), or at the end of a
    block of ``batching``.
    """
    return schedule(queue, Call(function, args, kwargs))


def schedule(queue: str, call: Call, *, on_commit: bool | str | None = None) -> str:
    """Schedule one Call; returns the task's id.

    ``on_commit``: True or a database alias sends the message after that database's transaction
    commits, and not at all if it rolls back. None does what BEANSTALK_DISPATCH_ON_COMMIT says.
    Outside of a transaction the message is sent at once. What waits for the same commit is sent in
    batches. A message that cannot be sent after the commit is logged with its id, or kept if there
    is an outbox, since an error raised then would keep Django from running the other callbacks of
    the same commit. With BEANSTALK_DISPATCH_OUTBOX=always the message is stored in the transaction
    of that database, "default" if none is named; False sends it at once, and stores nothing.
    """
    try:
        return _check_and_send(queue, call, on_commit=on_commit)
    except SchedulingError as exc:
        # The frames below have the message as a local.
        raise exc.with_traceback(None) from exc.__cause__


def _check_and_send(queue: str, call: Call, *, on_commit: bool | str | None) -> str:
    config = get_config()
    [prepared] = _prepare_calls(queue, [call], config)
    if _is_sent_later(queue, [prepared], on_commit, config):
        return prepared.message.id
    task_id = sending.send(queue, prepared, config)
    send_task_scheduled(task_id, prepared.message.function, queue)
    return task_id


def schedule_many(
    queue: str, calls: Sequence[Call], *, on_commit: bool | str | None = None
) -> list[str]:
    """Schedule ``calls`` in batches; returns their ids in order.

    Every call is checked before the first is sent. On a standard queue several batches are sent at
    a time if there are more than three. Raises BatchError if some were not sent. A
    message that SQS accepts only at a second try comes after the rest of its batch of ten, on a
    FIFO queue too. ``on_commit`` as in ``schedule``.
    """
    try:
        return _schedule_many(queue, calls, on_commit=on_commit)
    except SchedulingError as exc:
        raise exc.with_traceback(None) from exc.__cause__  # as in schedule


def _schedule_many(queue: str, calls: Sequence[Call], *, on_commit: bool | str | None) -> list[str]:
    config = get_config()
    prepared = _prepare_calls(queue, calls, config)
    if prepared and _is_sent_later(queue, prepared, on_commit, config):
        return [each.message.id for each in prepared]
    return _send_many(queue, prepared, config)


async def aschedule_function(queue: str, function: Function, /, *args: Any, **kwargs: Any) -> str:
    """``schedule_function``, awaitable."""
    return await aschedule(queue, Call(function, args, kwargs))


async def aschedule(queue: str, call: Call, *, on_commit: bool | str | None = None) -> str:
    """``schedule``, awaitable."""
    run = _in_thread(schedule, on_commit)
    return await run(queue, call, on_commit=on_commit)


async def aschedule_many(
    queue: str, calls: Sequence[Call], *, on_commit: bool | str | None = None
) -> list[str]:
    """``schedule_many``, awaitable."""
    run = _in_thread(schedule_many, on_commit)
    return await run(queue, calls, on_commit=on_commit)


def cancel(task_id: str) -> None:
    """Cancel a task: it does not run, or not again. Nobody finds out whether there is such a task.

    A worker that receives its message deletes it, with the outcome ``cancelled``. A task that runs
    now continues, unless it looks at ``self.cancelled``. If it fails, it is not tried again. Raises
    ConfigurationError if BEANSTALK_DISPATCH_LEASE_CACHE is not set, LeaseUnavailable if that cache
    does not keep the mark, and InvalidCall for an id that no task can have.
    """
    marks.cancel(task_id)


async def acancel(task_id: str) -> None:
    """``cancel``, awaitable."""
    await sync_to_async(cancel)(task_id)


class batching:  # noqa: N801 - as the context managers of contextlib
    """Sends the calls of a block together: ``with batching("mail"):`` or ``async with``.

    ``queues`` are those whose calls are collected, all without any. A call in the block is checked
    and returns its task id; its message is sent in a batch of ten, at the end of the block at the
    latest. If some were not sent, the end of the block raises BatchError, whose positions are those
    of the calls in the block. With an outbox they are kept there instead. If the block raises, what
    it has scheduled is sent, and what was not sent is logged.

    A call that waits for a commit or is stored in the outbox is not collected. Neither is one of a
    thread or a forked process that the block has started. Each block needs a ``batching`` of its
    own: a second one raises RuntimeError.
    """

    def __init__(self, *queues: str) -> None:
        self._batch = Batch(queues)
        self._collecting = Collecting(self._batch)

    def __enter__(self) -> None:
        self._collecting.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._collecting.stop()
        self._send_collected(has_failed=exc is not None)

    async def __aenter__(self) -> None:
        self._collecting.start()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._collecting.stop()
        uses_database = bool(task_scheduled.receivers) or get_config().outbox != "off"
        send = sync_to_async(self._send_collected, thread_sensitive=uses_database)
        await send(has_failed=exc is not None)

    def _send_collected(self, *, has_failed: bool) -> None:
        config = get_config()
        calls = self._batch.close(config)
        failed: dict[str, list[Unsent]] = {}
        for queue, prepared, failure in calls:
            if failure is None:
                send_task_scheduled(prepared.message.id, prepared.message.function, queue)
            else:
                failed.setdefault(queue, []).append(failure)
        if failed and config.outbox != "off":
            failed = {
                queue: outbox.keep(queue, failures, config, using=DEFAULT_DB_ALIAS)
                for queue, failures in failed.items()
            }
        if has_failed:
            _log_unsent(failed)
        elif any(failed.values()):
            raise _batch_error([prepared for _, prepared, _ in calls], failed)


def _batch_error(
    prepared: Sequence[Prepared], failed: Mapping[str, Sequence[Unsent]]
) -> BatchError:
    reasons = {
        each.prepared.message.id: each.reason for unsent in failed.values() for each in unsent
    }
    ids = [each.message.id for each in prepared]
    return BatchError(
        sent={n: task_id for n, task_id in enumerate(ids) if task_id not in reasons},
        unsent={n: reasons[task_id] for n, task_id in enumerate(ids) if task_id in reasons},
    )


def _log_unsent(failed: Mapping[str, Sequence[Unsent]]) -> None:
    for queue, unsent in failed.items():
        for each in unsent:
            message = each.prepared.message
            logger.error(
                "not sent at the end of its block id=%s function=%s queue=%s error=%s",
                message.id, quoted(message.function), quoted(queue), quoted_error(each.reason),
            )  # fmt: skip


def warm() -> None:
    """Import boto3 and make its clients now, so that the first message is sent as fast as others.

    Queues that BEANSTALK_DISPATCH_QUEUES gives by name are looked up. Raises nothing; logs why it
    has failed. Call it in a process that was forked, such as in gunicorn's ``post_fork``.
    BEANSTALK_DISPATCH_WARM calls it when Django starts.
    """
    started = time.monotonic()
    try:
        config = get_config()
        if sending.is_local(config):
            return
        warm_queues(config)
    except Exception as exc:
        with no_fork():
            logger.warning("not warmed up error=%s", quoted_error(exc))
    else:
        took = (time.monotonic() - started) * 1000
        with no_fork():
            logger.info("warmed up queues=%d ms=%.0f", len(config.queues), took)


def start_warming() -> None:
    """Call ``warm`` in a thread."""
    threading.Thread(target=warm, name="beanstalk_dispatch-warm", daemon=True).start()


P = ParamSpec("P")
T = TypeVar("T")


def _in_thread(
    function: Callable[P, T], on_commit: bool | str | None
) -> Callable[P, Coroutine[Any, Any, T]]:
    """``function``, awaitable; with context variables, as asgiref carries them.

    It runs in one of the threads for sending, so that several coroutines send at the same time.
    What may use the database runs in the thread of Django's ORM: a call that may wait for a commit,
    a task that runs in this process, the receivers of task_scheduled, and a result that is kept.
    """
    config = get_config()
    may_wait = config.on_commit if on_commit is None else on_commit
    uses_database = may_wait or outbox.stores(on_commit, config) or config.results
    if uses_database or sending.is_local(config) or task_scheduled.receivers:
        return sync_to_async(function)
    return sync_to_async(function, thread_sensitive=False, executor=sending_executor())


def _prepare_calls(queue: str, calls: Iterable[Call], config: Config) -> list[Prepared]:
    """Check calls, and encode them for the queue. Raises what is wrong with the first of them."""
    checked = [(call, *_checked_message(call, config)) for call in calls]
    if not checked:
        return []
    # A call that is stored needs no SQS, which may not answer now.
    needs_no_sqs = sending.is_local(config) or config.outbox == "always"
    # The address of an alias needs no request, so the arguments are checked before the first one.
    is_known = needs_no_sqs or config.queues
    address = resolve_address(queue, config) if is_known else open_queue(queue).address
    needs_group_id = queue_rules(address.name).needs_group_id
    prepared = []
    for call, message, delay in checked:
        parameters: dict[str, Any] = {}
        if delay or call.group_id or call.deduplication_id or needs_group_id:
            parameters = send_parameters(
                address,
                delay=delay,
                group_id=call.group_id,
                deduplication_id=call.deduplication_id,
                message_id=message.id,
            )
        body = sending.encode(message, address, config)
        prepared.append(Prepared(message, body, parameters))
    if config.queues and not needs_no_sqs:
        open_queue(queue)  # raises if there is no such queue, also where the call is sent later
    return prepared


def _refuse_in_base64(message: Message, config: Config) -> None:
    """Raise InvalidCall for a delay that only messages in JSON can have."""
    if config.message_format == "base64":
        raise InvalidCall(
            f"{message.function}: a delay beyond {MAX_DELAY_SECONDS} s needs "
            f"{MESSAGE_FORMAT.variable}=json; 0.1 workers would run it too early"
        )


def _checked_message(call: Call, config: Config) -> tuple[Message, int]:
    """The message of a call, and its delay for SQS. Raises UnknownFunction or InvalidCall."""
    if not isinstance(call, Call):
        raise InvalidCall(
            f"expected a Call, got {type(call).__name__}; write schedule(queue, Call('name', [1])) "
            "or schedule_function(queue, 'name', 1)"
        )
    if not isinstance(call.kwargs, (dict, Mapping)):
        raise InvalidCall(_ARGUMENTS_FORM)
    message = Message(
        function=_table_name(call.function, config),
        args=call.args if isinstance(call.args, (list, tuple)) else _as_list(call.args),
        kwargs=call.kwargs,
        sent_at=now() if call.sent_at is None else call.sent_at,
        options=options_to_send(call.function) if isinstance(call.function, SafeTask) else {},
        headers=_checked_headers(call.headers) if call.headers else {},
    )
    if config.check_calls and config.table:
        call_check.check_call(message.function, message.args, message.kwargs, config)
    delay = _delay_seconds(call.delay) if call.delay else 0
    if delay > MAX_DELAY_SECONDS:
        message.not_before = round(time.time() + delay, 3)
        delay = MAX_DELAY_SECONDS
        _refuse_in_base64(message, config)
    return message, delay


def _checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    if all(isinstance(item, str) for pair in headers.items() for item in pair):
        return dict(headers)
    raise InvalidCall("headers is a mapping of strings to strings")


_ARGUMENTS_FORM = "args is a list or tuple, kwargs a dict; Call(function, [1], {'a': 2})"


def _as_list(args: object) -> list[Any]:
    if isinstance(args, Iterable) and not isinstance(args, str | bytes | Mapping):
        return list(args)
    raise InvalidCall(_ARGUMENTS_FORM)


def _is_sent_later(
    queue: str, prepared: Sequence[Prepared], on_commit: bool | str | None, config: Config
) -> bool:
    """Store calls, have them wait for a commit, or collect them. False: they are to be sent now."""
    if outbox.stores(on_commit, config):
        using = on_commit if isinstance(on_commit, str) else DEFAULT_DB_ALIAS
        outbox.store(queue, prepared, config, using=using)
        return True
    if alias := _awaited_commit(on_commit, config):
        commits.send_after_commit(queue, prepared, config, using=alias, send_many=_send_many)
        return True
    for batch in open_batches():
        if not sending.is_local(config) and batch.add(queue, prepared, config):
            return True
    return False


def _send_many(queue: str, prepared: Sequence[Prepared], config: Config) -> list[str]:
    """Send calls in batches, with a signal for each that was sent. Raises BatchError."""
    try:
        task_ids = sending.send_many(queue, prepared, config)
    except BatchError as exc:
        for position, task_id in exc.sent.items():
            send_task_scheduled(task_id, prepared[position].message.function, queue)
        raise
    for each, task_id in zip(prepared, task_ids, strict=True):
        send_task_scheduled(task_id, each.message.function, queue)
    return task_ids


def send_task_scheduled(task_id: str, function: str, queue: str) -> None:
    """Send the signal ``task_scheduled`` for a message that SQS has taken."""
    if task_scheduled.receivers:
        task_scheduled.send_robust(sender=schedule, task_id=task_id, function=function, queue=queue)


def _awaited_commit(on_commit: bool | str | None, config: Config) -> str | None:
    """The database alias whose transaction is to be waited for, if there is one."""
    if on_commit is None:
        on_commit = config.on_commit or config.outbox == "always"
    if not on_commit:
        return None
    alias = on_commit if isinstance(on_commit, str) else DEFAULT_DB_ALIAS
    connection = transaction.get_connection(alias)
    # Without autocommit on_commit() raises what is wrong with that.
    return alias if connection.in_atomic_block or not connection.get_autocommit() else None


def _delay_seconds(delay: float | timedelta) -> int:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidCall(
            f"delay {delay!r} is not a number of seconds or a timedelta; for a moment, pass "
            "moment - timezone.now()"
        )
    if not 0 <= seconds <= MAX_DELAY_DAYS * 86400:
        raise InvalidCall(
            f"delay {delay!r} is out of range; 0 seconds or more, at most {MAX_DELAY_DAYS} days"
        )
    return math.ceil(seconds)


# --- naming the function ---------------------------------------------------------------------


def _table_name(function: Function, config: Config) -> str:
    """The table name of ``function``. Raises UnknownFunction."""
    if isinstance(function, str):
        if (config.table or config.tasks) and not is_listed(function, config):
            raise _unlisted_error(function, config)
        if not is_name(function):
            raise InvalidCall(f"function {function[:100]!r} is not {NAME_FORM}")
        return function
    if isinstance(path := getattr(function, "module_path", None), str):  # a Task of django.tasks
        return _table_name(_names_by_path(config).get(path, path), config)
    if not callable(function) and not isinstance(function, SafeTask):
        raise UnknownFunction(
            f"expected a function, or its name in {TABLE.variable}, not "
            f"{function!r:.100}; write schedule_function(queue, 'name', 1)"
        )
    path = _dotted_path(function)
    name = _names_by_path(config).get(path)
    if name is None:
        raise UnknownFunction(
            f"no name in {TABLE.variable} stands for {path}; known: "
            f"{listed([f'{name}={path}' for name, path in config.table.items()])}"
            f"{_advice_on(function, path, config)}"
        )
    return name


def _advice_on(function: object, path: str, config: Config) -> str:
    """What to do about a function that the table does not list."""
    is_found_by_path = isinstance(function, SafeTask | type) or inspect.isfunction(function)
    if not is_found_by_path or "<" in path:
        return "; a worker finds a function by its dotted path, so write one in a module"
    return "" if config.table else "; set the table here, too, or pass the function's name"


def _unlisted_error(name: str, config: Config) -> UnknownFunction:
    table, tasks = TABLE.variable, TASKS.variable
    if name in config.queues:
        return UnknownFunction(
            f"{name!r} is a queue, and not in {table}; write schedule_function(queue, function, …)"
        )
    if not config.tasks:
        return UnknownFunction(f"{name!r} is not in {table}; known: {listed(config.table)}")
    return UnknownFunction(
        f"{name!r} is neither in {table} nor, by itself or by its module, in {tasks}; known: "
        f"{listed([*config.table, *config.tasks])}"
    )


@functools.lru_cache(maxsize=1)
def _names_by_path(config: Config) -> dict[str, str]:
    return {path: name for name, path in config.table.items()}


def _dotted_path(function: Callable[..., Any] | SafeTask | NamedByPath) -> str:
    target: Any = (
        vars(function).get("run", type(function)) if isinstance(function, SafeTask) else function
    )
    if isinstance(path := getattr(target, "module_path", None), str):  # a Task of django.tasks
        return path
    target = inspect.unwrap(target)
    name = getattr(target, "__qualname__", None)
    return f"{target.__module__}.{name}" if name else f"a {type(target).__name__}"
