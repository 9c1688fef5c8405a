"""Message → listed function → SafeTask → Result: the one path of view, worker and eager mode."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from beanstalk_dispatch.conf import SETTINGS, Config, get_config
from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.dispatch_table import resolve, task_class
from beanstalk_dispatch.exceptions import (
    AlreadyDone,
    AlreadyRunning,
    BadSignature,
    BeanstalkDispatchError,
    ConfigurationError,
    LeaseError,
    LeaseUnavailable,
    MalformedMessage,
    MessageError,
    NotAllowed,
    UnknownFunction,
)
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.outcomes import OUTCOMES, Outcome, Result
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.signals import delivery_finished
from beanstalk_dispatch.sqs.fifo import queue_rules
from beanstalk_dispatch.sqs.opening import open_queue_by_own_name
from beanstalk_dispatch.sqs.parameters import check_size, send_parameters
from beanstalk_dispatch.sqs.quotas import MAX_DELAY_SECONDS, MAX_VISIBILITY_SECONDS

from . import dead_letters
from .lease import Lease

logger = logging.getLogger("beanstalk_dispatch.task")

Resend = Callable[[Message, float, Delivery], None]
"""Put a message back on its queue, to be delivered after so many seconds."""

_OURS: Final = f"{__package__}."
_LONGEST_HIDDEN: Final = MAX_VISIBILITY_SECONDS / 2  # the clock of 12 hours started at the receive
_REFUSALS: Final[dict[type[Exception], Outcome]] = {
    MalformedMessage: Outcome.MALFORMED,
    UnknownFunction: Outcome.UNKNOWN_FUNCTION,
    BadSignature: Outcome.BAD_SIGNATURE,
    NotAllowed: Outcome.NOT_ALLOWED,
    AlreadyDone: Outcome.DUPLICATE,
    AlreadyRunning: Outcome.RUNNING,
    LeaseUnavailable: Outcome.UNAVAILABLE,
}
_DONE: Final = Result(outcome=Outcome.DONE, acknowledged=True)


def run(
    body: bytes | str,
    delivery: Delivery,
    *,
    resend: Resend | None = None,
    can_hide: bool = False,
    on_limit: Callable[[float], None] = lambda seconds: None,
) -> Result:
    """Run what was delivered, and log one line about it. Raises ConfigurationError only.

    An empty body with a task name is a periodic task of cron.yaml. ``resend`` is how a retry
    or a delay beyond SQS's limit is put back; None sends a copy to the delivery's queue.
    ``can_hide``: the consumer can hide the message for ``retry_after`` seconds. On a FIFO queue,
    which takes no delayed copy, it is then retried so, and each receive counts as an attempt.
    ``on_limit`` is called with the task's time limit in seconds before the task starts. Sets
    ``delivery.message``.
    """
    started = time.monotonic()
    config = get_config()
    delivery.body = body
    try:
        delivery.message = message = _read(body, delivery, config)
        hides = can_hide and queue_rules(delivery.queue).retries_by_visibility
        result = _run(
            message, delivery, config,
            resend=resend or resend_copy, hides=hides, on_limit=on_limit,
        )  # fmt: skip
    except (MessageError, UnknownFunction) as exc:
        result = Result(outcome=_REFUSALS[type(exc)], reason=str(exc), exception=exc, final=True)
        result = _bury(result, delivery, config)
    except LeaseError as exc:
        result = _not_now(exc)
    _log(result, delivery, milliseconds=(time.monotonic() - started) * 1000)
    if delivery_finished.receivers:
        delivery_finished.send_robust(
            sender=run, delivery=delivery, outcome=result.outcome, exception=result.exception
        )
    return result


def _read(body: bytes | str, delivery: Delivery, config: Config) -> Message:
    if delivery.task_name and not body.strip():
        return _periodic(delivery, config)
    return Message.decode(
        body, queue=delivery.queue, keys=config.signing_keys, default_id=delivery.message_id
    )


def _periodic(delivery: Delivery, config: Config) -> Message:
    name = delivery.task_name or ""
    if name not in config.periodic_tasks:
        raise NotAllowed(f"periodic task {name!r} is not in {SETTINGS['periodic_tasks'].variable}")
    if delivery.message_id is None:
        return Message(function=name)
    return Message(function=name, id=delivery.message_id)


def _run(
    message: Message,
    delivery: Delivery,
    config: Config,
    *,
    resend: Resend,
    hides: bool,
    on_limit: Callable[[float], None],
) -> Result:
    runnable = resolve(message.function, config)
    if message.not_before is not None and (wait := message.not_before - time.time()) > 0:
        return _resend(resend, message, wait, delivery, Outcome.DEFERRED)
    if hides:
        message.attempt += delivery.receive_count - 1
    try:
        task = _task(runnable, message, delivery, config)
        time_limit = task._limit()
        on_limit(time_limit)
    except (MalformedMessage, ConfigurationError):
        raise
    except Exception as exc:  # from an __init__() or a limit of the project's own
        return _failed_outside(exc, message, config)
    if config.lease_cache is None or config.execute_synchronously:
        return _process(task, message, delivery, config, resend=resend, hides=hides)
    lease = Lease(config.lease_cache, message, time_limit=time_limit)
    lease.take()
    if type(task).process.__module__.startswith(_OURS):  # else more than run() has to succeed
        task._on_done = lease.done
    try:
        result = _process(task, message, delivery, config, resend=resend, hides=hides)
    except BaseException:
        lease.give_up()
        raise
    _settle(lease, result)
    return result


def _task(runnable: Any, message: Message, delivery: Delivery, config: Config) -> SafeTask:
    task = task_class(message.function, config)()
    if not isinstance(runnable, type):
        task.run = runnable  # type: ignore[method-assign]
    if message.options:
        task.apply(message.options)
    task.delivery = delivery
    return task


def _process(
    task: SafeTask,
    message: Message,
    delivery: Delivery,
    config: Config,
    *,
    resend: Resend,
    hides: bool,
) -> Result:
    try:
        task.process(*message.args, **message.kwargs)
    except Exception as exc:  # from a process() of the project's own
        return _failed_outside(exc, message, config)
    outcome, exception, delay = task._outcome, task._exception, task._retry_delay
    if outcome is Outcome.DONE:
        return _DONE
    if outcome is Outcome.RETRY:
        if hides and delay <= _LONGEST_HIDDEN:
            return Result(outcome=outcome, exception=exception, retry_after=delay)
        came = _read(delivery.body, delivery, config)  # the task may have changed its arguments
        copy = replace(
            message,
            args=came.args,
            kwargs=came.kwargs,
            attempt=message.attempt + 1,
            not_before=None,
        )
        return replace(_resend(resend, copy, delay, delivery, outcome), exception=exception)
    if exception is not None and not hides:  # redelivery backs off, too
        delay = task._delay(exception, message.attempt + delivery.receive_count - 1)
    result = Result(
        outcome=outcome,
        reason="the task timed out" if outcome is Outcome.TIMED_OUT else "the task failed",
        exception=exception,
        # A server that is stopped raises SystemExit in its main thread: not the task's failure.
        acknowledged=config.on_failure == "acknowledge" and not isinstance(exception, SystemExit),
        retry_after=delay,
        final=task._is_final,
    )
    return _bury(result, delivery, config) if result.final else result


def _failed_outside(exc: Exception, message: Message, config: Config) -> Result:
    logger.error("%s failed outside of its run()", message, exc_info=exc)
    return Result(
        outcome=Outcome.FAILED,
        reason="the task failed",
        exception=exc,
        acknowledged=config.on_failure == "acknowledge",
    )


def _settle(lease: Lease, result: Result) -> None:
    if result.outcome is Outcome.DONE:
        lease.done()
    elif result.dead_lettered or (result.outcome is Outcome.RETRY and result.acknowledged):
        lease.handed_on()
    else:
        lease.give_up()


def _resend(
    resend: Resend, message: Message, delay: float, delivery: Delivery, outcome: Outcome
) -> Result:
    """What was not put back must not be acknowledged."""
    try:
        resend(message, delay, delivery)
    except BeanstalkDispatchError as exc:
        logger.error("%s could not be sent again: %s", message, exc)
        return Result(outcome=Outcome.FAILED, reason="could not be sent again", exception=exc)
    return Result(outcome=outcome, acknowledged=True)


def _bury(result: Result, delivery: Delivery, config: Config) -> Result:
    """To the dead-letter queue, if there is one; what it did not take is not acknowledged."""
    alias = config.dead_letter_queue
    if not alias or config.execute_synchronously:
        return result
    taken = dead_letters.bury(
        delivery, config, alias=alias, outcome=result.outcome, exception=result.exception
    )
    return replace(result, acknowledged=taken, dead_lettered=taken)


def _not_now(exc: LeaseError) -> Result:
    outcome = _REFUSALS[type(exc)]
    return Result(
        outcome=outcome,
        reason=str(exc),
        exception=exc,
        acknowledged=outcome is Outcome.DUPLICATE,
        retry_after=exc.retry_after,
    )


def resend_copy(message: Message, delay: float, delivery: Delivery) -> None:
    """Send a delayed copy to the queue the delivery came from.

    Beyond SQS's 15 minutes the copy carries ``not_before`` and is sent again when it arrives.
    """
    config = get_config()
    target = open_queue_by_own_name(delivery.queue)
    if delay > MAX_DELAY_SECONDS:
        message = replace(message, not_before=round(time.time() + delay, 3))
    body = message.encode(
        queue=target.name, keys=config.signing_keys, legacy=config.message_format == "base64"
    )
    check_size(body, function=message.function)
    seconds = min(math.ceil(delay), MAX_DELAY_SECONDS)
    group_id = delivery.group_id if target.rules.takes_delay else None
    target.send(body, send_parameters(target.address, delay=seconds, group_id=group_id))


# --- the log ---------------------------------------------------------------------------------


def _log(result: Result, delivery: Delivery, *, milliseconds: float) -> None:
    level = OUTCOMES[result.outcome].level
    if not logger.isEnabledFor(level):
        return
    message = delivery.message
    extra = f" reason={_cause(result)!r}" if result.reason else ""
    if result.dead_lettered:
        extra += f" dead_letter_queue={get_config().dead_letter_queue}"
    logger.log(
        level,
        "task id=%s function=%s outcome=%s receive_count=%d ms=%.0f%s",
        message.id if message else delivery.message_id,
        message.function if message else delivery.task_name,
        result.outcome,
        delivery.receive_count,
        milliseconds,
        extra,
    )


def _cause(result: Result) -> str:
    """The log says more than the response: why an import failed."""
    cause = result.exception.__cause__ if result.exception else None
    if result.outcome is Outcome.UNKNOWN_FUNCTION and cause:
        return f"{result.reason} ({type(cause).__name__}: {cause})"
    return result.reason
