"""schedule_function and its family: send a call now, after a commit, or together with others.

Each prepares a list of calls, asks the places of ``scheduling.later``, and sends the rest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Never, cast

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS

from .conf import Config, get_config, is_test
from .consumers.calling_process import run_here
from .exceptions import SchedulingError, SendError
from .logging.log_lines import quoted_error
from .messages import record
from .process.state import no_fork
from .running.definitions.configured import configured_observers
from .running.definitions.parameters import advice_on
from .scheduling import gathering, later, outbox
from .scheduling.batching import CollectedCalls
from .scheduling.call import Call, Function
from .scheduling.destination import Destination
from .scheduling.misplaced_calls import IN_A_TEST, warn_if_misplaced
from .scheduling.prepare import Prepared, prepare_calls
from .scheduling.send import (
    Send,
    SendResult,
    Unsent,
    error_of,
    log_unsent,
    publish,
    publishing,
    send_batches,
    send_one,
)  # fmt: skip
from .scheduling.send_once import send_once
from .scheduling.threads import sending_executor
from .scheduling.typed_calls import typed_call
from .signals import task_scheduled
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

_ONE_CALL: Final = (
    "schedule() takes a queue and one Call: schedule(queue, Call('name', [1]), on_commit=True), or "
    "schedule_function(queue, 'name', 1)"
)

capture: Send | None = None
"""Takes all calls instead of SQS: see testing.capture_tasks."""


@typed_call
def schedule_function(queue: str, function: Function, /, *args: Any, **kwargs: Any) -> str:
    """Run ``function`` with these arguments on a worker of ``queue``, and return the task's id.

    ``queue`` is an alias of BEANSTALK_DISPATCH_QUEUES (without any: a queue's name, URL or
    ARN); ``function`` as in Call. Raise a SchedulingError or UnknownFunction. If it returns,
    SQS has the message, or will get it: after the transaction commits
    (BEANSTALK_DISPATCH_ON_COMMIT), from the outbox (BEANSTALK_DISPATCH_OUTBOX), or at the end of a
    block of ``batching``.
    """
    return schedule(queue, Call(function, args, kwargs))


def schedule(
    queue: str, call: Call, *more: Never, on_commit: bool | str | None = None, **options: Never
) -> str:
    """Schedule one Call, and return the task's id.

    ``on_commit``: True or a database alias sends the message after that database's transaction
    commits, and not at all if it rolls back. None does as BEANSTALK_DISPATCH_ON_COMMIT says.
    Outside of a transaction the message is sent at once. Messages of the same commit are sent in
    batches. A message that cannot be sent after the commit is logged with its id, or kept if there
    is an outbox, since an error raised then would keep Django from running the other callbacks of
    the same commit. With BEANSTALK_DISPATCH_OUTBOX=always the message is stored in the transaction
    of that database, "default" if none is named; False sends it at once, and stores nothing.
    """
    if more or options:
        raise _not_one_call(options)
    try:
        config = get_config()
        destination, prepared = prepare_calls(queue, [call], config, is_local=is_local(config))
        [task_id] = send_prepared(destination, prepared, on_commit=on_commit, send=send_one)
    except SchedulingError as exc:
        raise shown_to_callers(exc) from exc.__cause__
    else:
        return task_id


def schedule_many(
    queue: str, calls: Sequence[Call], *, on_commit: bool | str | None = None
) -> list[str]:
    """Schedule ``calls`` in batches, and return their ids in order.

    Every call is checked before the first is sent. On a standard queue several batches are sent at
    a time if there are more than three. Raise BatchError if some were not sent. A
    message that SQS accepts only at a second try comes after the rest of its batch of ten, on a
    FIFO queue too. ``on_commit`` as in ``schedule``.
    """
    try:
        config = get_config()
        destination, prepared = prepare_calls(queue, calls, config, is_local=is_local(config))
        return send_prepared(destination, prepared, on_commit=on_commit)
    except SchedulingError as exc:
        raise shown_to_callers(exc) from exc.__cause__


def _not_one_call(options: Mapping[str, object]) -> TypeError:
    """Return the error for more than a queue and one Call, with advice on the keywords."""
    return TypeError("; ".join([_ONE_CALL, *advice_on(options, "name")]))


def shown_to_callers(error: SchedulingError) -> SchedulingError:
    """Return an error without its frames, which have the message as a local."""
    if isinstance(error, SendError) and is_test():
        error.add_note(IN_A_TEST)
    return error.with_traceback(None)


def send_prepared(
    destination: Destination,
    prepared: Sequence[Prepared],
    *,
    on_commit: bool | str | None,
    send: Send = send_batches,
) -> list[str]:
    """Have calls wait, or send them now; return their task ids. Raise SendError or BatchError."""
    if later.keep(destination, prepared, on_commit, _send):
        return [each.message.id for each in prepared]
    if prepared and not destination.is_local:
        warn_if_misplaced(destination, on_commit)
    results = _send(destination, prepared, send)
    if Unsent in map(type, results) and (error := error_of(results)):
        raise error from error.__cause__
    return cast("list[str]", results)


@typed_call
async def aschedule_function(queue: str, function: Function, /, *args: Any, **kwargs: Any) -> str:
    """Do as ``schedule_function``, awaitable."""
    return await aschedule(queue, Call(function, args, kwargs))


async def aschedule(
    queue: str, call: Call, *more: Never, on_commit: bool | str | None = None, **options: Never
) -> str:
    """Do as ``schedule``, awaitable.

    The calls to a standard queue that coroutines make in one iteration of the event loop, as with
    ``asyncio.gather``, are sent in batches of ten.
    """
    if more or options:
        raise _not_one_call(options)
    if _uses_database(on_commit):
        return await sync_to_async(schedule)(queue, call, on_commit=on_commit)
    if getattr(call, "unique", None) is not None or get_config().has_policy("unique_by"):
        run = sync_to_async(schedule, thread_sensitive=False, executor=sending_executor())
        return await run(queue, call, on_commit=on_commit)
    return await gathering.join(queue, _schedule_in_steps(queue, call, on_commit))


def _schedule_in_steps(queue: str, call: Call, on_commit: bool | str | None) -> gathering.Steps:
    """Do as ``schedule``, but yield the message so that it can be sent with others."""
    destination, prepared = prepare_calls(queue, [call], get_config(), is_local=False)
    if later.keep(destination, prepared, on_commit, _send):
        return prepared[0].message.id
    with publishing(destination, prepared):
        result = (yield destination, prepared[0]) or send_one(destination, prepared)[0]
        if error := error_of([result]):
            raise error from error.__cause__
    task_id = cast("str", result)
    send_task_scheduled(task_id, prepared[0].message.function, destination.name)
    return task_id


async def aschedule_many(
    queue: str, calls: Sequence[Call], *, on_commit: bool | str | None = None
) -> list[str]:
    """Do as ``schedule_many``, awaitable."""
    if _uses_database(on_commit):
        return await sync_to_async(schedule_many)(queue, calls, on_commit=on_commit)
    run = sync_to_async(schedule_many, thread_sensitive=False, executor=sending_executor())
    return await run(queue, calls, on_commit=on_commit)


def cancel(task_id: str, *, stop: bool = False) -> None:
    """Cancel a task: it does not run, or not again. Nobody finds out whether there is such a task.

    A message that waits in the outbox is deleted there, which needs no lease. A worker that
    receives the message deletes it, with the outcome ``cancelled``. A task that runs now continues,
    unless it looks at ``self.cancelled``. If it fails, it is not tried again. With ``stop``, a task
    that runs in a process of its own is ended within a few seconds. Raise ConfigurationError if
    BEANSTALK_DISPATCH_LEASE_CACHE is not set, or if ``stop`` is asked for and
    BEANSTALK_DISPATCH_ISOLATION is ``thread``; LeaseUnavailable if that cache does not keep the
    mark, and InvalidCall for an id that no task can have. A DatabaseError of the outbox is raised
    as it is.
    """
    config = get_config()
    if outbox.cancel(task_id, config):
        if config.lease_cache is None:
            return
        stop = False
    if stop:
        record.stop(task_id)
    else:
        record.cancel(task_id)


async def acancel(task_id: str, *, stop: bool = False) -> None:
    """Do as ``cancel``, awaitable."""
    await sync_to_async(cancel)(task_id, stop=stop)


class batching:  # noqa: N801 - as the context managers of contextlib
    """Send the calls of a block together: ``with batching("mail"):`` or ``async with``.

    ``queues`` are those whose calls are collected, all without any. A call in the block is checked
    and returns its task id; its message is sent in a batch of ten, at the end of the block at the
    latest. If some were not sent, the end of the block raises BatchError, whose positions are those
    of the calls in the block. With an outbox they are kept there instead. If the block raises, its
    calls are sent, and those that were not sent are logged. An alias that does not exist raises
    UnknownQueue at the start of the block.

    A call that waits for a commit or is stored in the outbox is not collected. Neither is one of a
    thread or a forked process that the block has started. Each block needs a ``batching`` of its
    own: a second one raises RuntimeError.
    """

    def __init__(self, *queues: str) -> None:
        self._calls = CollectedCalls(queues)

    def __enter__(self) -> None:
        self._calls.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.stop()
        self._send_collected(has_failed=exc is not None)

    async def __aenter__(self) -> None:
        self._calls.start()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.stop()
        uses_database = bool(task_scheduled.receivers) or get_config().uses_outbox
        send = sync_to_async(self._send_collected, thread_sensitive=uses_database)
        await send(has_failed=exc is not None)

    def _send_collected(self, *, has_failed: bool) -> None:
        calls = self._calls.close()
        failed: dict[Destination, list[Unsent]] = {}
        for destination, prepared, failure in calls:
            if failure is None:
                message = prepared.message
                send_task_scheduled(message.id, message.function, destination.name)
            else:
                failed.setdefault(destination, []).append(failure)
        if failed and get_config().uses_outbox:
            failed = {
                destination: outbox.keep(destination, failures, using=DEFAULT_DB_ALIAS)
                for destination, failures in failed.items()
            }
        left = {each.prepared.message.id: each for unsent in failed.values() for each in unsent}
        ids = [prepared.message.id for _, prepared, _ in calls]
        if has_failed:
            for destination, failures in failed.items():
                log_unsent(destination, failures, when="at the end of its block")
        elif error := error_of([left.get(task_id, task_id) for task_id in ids]):
            raise error


def warm() -> None:
    """Import boto3 and make its clients now, so that the first message is sent as fast as others.

    Queues that BEANSTALK_DISPATCH_QUEUES gives by name are looked up. Raise nothing; log the
    reason of a failure. Call it in a process that was forked, such as in gunicorn's ``post_fork``.
    BEANSTALK_DISPATCH_WARM calls it when Django starts.
    """
    started = time.monotonic()
    try:
        config = get_config()
        if is_local(config):
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


def _uses_database(on_commit: bool | str | None) -> bool:
    """Return True if a call may use the database, and so runs in the thread of Django's ORM.

    That is a call that may wait for a commit, a task of this process, the receivers of
    task_scheduled, and a result that is kept. Other calls of coroutines run in the threads for
    sending.
    """
    config = get_config()
    may_wait = config.may_wait_for_commits if on_commit is None else on_commit
    return bool(may_wait or config.results or is_local(config) or task_scheduled.receivers)


def is_local(config: Config) -> bool:
    """Return True if calls are captured or run in this process instead of being sent."""
    return capture is not None or config.execute_synchronously


def way_of(config: Config, send: Send) -> Send:
    """Return the taker of the calls of this process: a test, the process itself, or ``send``."""
    return capture or (run_here if config.execute_synchronously else send)


def _send(
    destination: Destination, prepared: Sequence[Prepared], send: Send = send_batches
) -> list[SendResult]:
    """Send calls now, and announce those that were sent."""
    way = way_of(destination.config, send)
    if configured_observers(destination.config):
        way = partial(publish, send=way)
    results = send_once(destination, prepared, way)
    if task_scheduled.receivers:
        for each, result in zip(prepared, results, strict=True):
            is_other = bool(each.message.unique) and result != each.message.id
            if isinstance(result, str) and not is_other:
                send_task_scheduled(result, each.message.function, destination.name)
    return results


def send_task_scheduled(task_id: str, function: str, queue: str) -> None:
    """Send the signal ``task_scheduled`` for a message that SQS has taken."""
    if task_scheduled.receivers:
        task_scheduled.send_robust(sender=schedule, task_id=task_id, function=function, queue=queue)
