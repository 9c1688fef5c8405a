"""schedule_function and its family: send a call now, after a commit, or together with others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, transaction

from .conf import Config, get_config
from .exceptions import BatchError, SchedulingError
from .logging.log_lines import quoted, quoted_error
from .messages import record
from .process.state import no_fork
from .scheduling import commits, outbox, send
from .scheduling.batching import CollectedCalls, Collecting, open_collections
from .scheduling.call import Call, Function
from .scheduling.prepare import prepare_calls
from .scheduling.send import Prepared, Unsent
from .scheduling.threads import sending_executor
from .signals import task_scheduled
from .sqs.errors import Scope
from .sqs.warming import warm_queues

__all__ = [
    "Call",
    "acancel",
    "aschedule",
    "aschedule_function",
    "aschedule_many",
    "batching",
    "cancel",
    "schedule",
    "schedule_function",
    "schedule_many",
    "warm",
]

logger = logging.getLogger("beanstalk_dispatch.scheduling")


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
    [prepared] = prepare_calls(queue, [call], config)
    if _is_sent_later(queue, [prepared], on_commit, config):
        return prepared.message.id
    task_id = send.send(queue, prepared, config)
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
    return send_prepared(queue, prepare_calls(queue, calls, config), config, on_commit=on_commit)


def send_prepared(
    queue: str, prepared: Sequence[Prepared], config: Config, *, on_commit: bool | str | None
) -> list[str]:
    """What ``schedule_many`` does with calls once they are checked."""
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
    record.cancel(task_id)


async def acancel(task_id: str) -> None:
    """``cancel``, awaitable."""
    await sync_to_async(cancel)(task_id)


class batching:  # noqa: N801 - as the context managers of contextlib
    """Sends the calls of a block together: ``with batching("mail"):`` or ``async with``.

    ``queues`` are those whose calls are collected, all without any. A call in the block is checked
    and returns its task id; its message is sent in a batch of ten, at the end of the block at the
    latest. If some were not sent, the end of the block raises BatchError, whose positions are those
    of the calls in the block. With an outbox they are kept there instead. If the block raises, what
    it has scheduled is sent, and what was not sent is logged. An alias that does not exist raises
    UnknownQueue at the start of the block.

    A call that waits for a commit or is stored in the outbox is not collected. Neither is one of a
    thread or a forked process that the block has started. Each block needs a ``batching`` of its
    own: a second one raises RuntimeError.
    """

    def __init__(self, *queues: str) -> None:
        self._calls = CollectedCalls(queues)
        self._collecting = Collecting(self._calls)

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
        uses_database = bool(task_scheduled.receivers) or get_config().uses_outbox
        send = sync_to_async(self._send_collected, thread_sensitive=uses_database)
        await send(has_failed=exc is not None)

    def _send_collected(self, *, has_failed: bool) -> None:
        config = get_config()
        calls = self._calls.close(config)
        failed: dict[str, list[Unsent]] = {}
        for queue, prepared, failure in calls:
            if failure is None:
                send_task_scheduled(prepared.message.id, prepared.message.function, queue)
            else:
                failed.setdefault(queue, []).append(failure)
        if failed and config.uses_outbox:
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
    by_id = {each.prepared.message.id: each for unsent in failed.values() for each in unsent}
    ids = [each.message.id for each in prepared]
    unsent = {n: by_id[task_id] for n, task_id in enumerate(ids) if task_id in by_id}
    return BatchError(
        sent={n: task_id for n, task_id in enumerate(ids) if task_id not in by_id},
        unsent={n: each.reason for n, each in unsent.items()},
        refused=[n for n, each in unsent.items() if each.scope is Scope.MESSAGE],
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
        if send.is_local(config):
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
    if uses_database or send.is_local(config) or task_scheduled.receivers:
        return sync_to_async(function)
    return sync_to_async(function, thread_sensitive=False, executor=sending_executor())


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
    for collected in open_collections():
        if not send.is_local(config) and collected.add(queue, prepared, config):
            return True
    return False


def _send_many(queue: str, prepared: Sequence[Prepared], config: Config) -> list[str]:
    """Send calls in batches, with a signal for each that was sent. Raises BatchError."""
    try:
        task_ids = send.send_many(queue, prepared, config)
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
    # get_autocommit() would connect, which may fail, only to say what the settings say.
    is_connected = connection.connection is not None
    is_autocommit = (
        connection.autocommit if is_connected else connection.settings_dict["AUTOCOMMIT"]
    )
    # Without autocommit on_commit() raises what is wrong with that.
    return alias if connection.in_atomic_block or not is_autocommit else None
