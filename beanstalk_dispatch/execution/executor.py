"""Message → listed task → lease → attempt → Result: the one way of every consumer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import replace
from typing import Final

from django.core.cache import caches

from beanstalk_dispatch import clock, dispatch_table, marks
from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.variables import MAX_AGE, PERIODIC_TASKS
from beanstalk_dispatch.delivery import Delivery
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
    NoTimeLeft,
    TaskCancelled,
    TaskCut,
    UnknownFunction,
)
from beanstalk_dispatch.log_lines import quoted, quoted_error
from beanstalk_dispatch.message import MAX_DELAY_DAYS, Message
from beanstalk_dispatch.outcomes import OUTCOMES, Outcome, Result
from beanstalk_dispatch.refusals import REFUSALS
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.signals import delivery_finished
from beanstalk_dispatch.sqs.fifo import queue_rules
from beanstalk_dispatch.sqs.quotas import MAX_DELAY_SECONDS, MAX_VISIBILITY_SECONDS

from . import dead_letters
from .attempt import Attempt, has_own_process, run_attempt
from .consumer import DELAYED_COPIES, Consumer
from .crash_ledger import MAX_CUTS
from .lease import WHY_CANCELLED, Lease
from .left_behind import put_right
from .observers import observed
from .open_files import FILES, can_open_files
from .outcome_log import log_outcome
from .process_exceptions import is_for_the_process
from .process_state import process_state
from .recent_deliveries import RECENT, key_of
from .retries import retry_delay
from .running_tasks import RUNNING, RunningTask
from .task_options import apply_received_options, time_limit_of
from .time_limit import TimeLimitExceeded

logger = logging.getLogger("beanstalk_dispatch.task")

# The clock of SQS's 12 hours has started at the receive, so no more than half of it is used.
_MAX_HIDDEN_SECONDS: Final = MAX_VISIBILITY_SECONDS / 2
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
_HANDED_ON: Final = frozenset({Outcome.RETRY, Outcome.CANCELLED})
MIN_PAUSED_SECONDS: Final = 10
"""The shortest time that a message of a paused queue waits before it is looked at again."""
_MAX_WAIT_SECONDS: Final = (MAX_DELAY_DAYS + 1) * 86400  # a day for clocks that differ
_RETRY_RUNNING_SECONDS: Final = 30.0
_WAITS_AS_COPY: Final = frozenset({Outcome.RUNNING, Outcome.UNAVAILABLE})
MAX_WAITING_RECEIVES: Final = 3
"""The receive from which on a message that waits for its lease does so as a delayed copy.

aws-sqsd brings a message back after two seconds and gives it up after ten receives. A lease that
nobody holds any more lasts longer than that.
"""
_has_caches: ContextVar[bool] = ContextVar("beanstalk_dispatch.has_caches", default=False)


def run(body: bytes | str, delivery: Delivery, consumer: Consumer = DELAYED_COPIES) -> Result:
    """Run what was delivered, and log one line about it. Sets ``delivery.message``.

    An empty body with a task name is a periodic task of cron.yaml. Raises ConfigurationError, and
    what is for the process rather than the task: Ctrl-C and SystemExit in the main thread.
    """
    config = get_config()
    delivery.body = body
    if not _has_caches.get():
        _make_caches()
    # What a task activates, such as a language or a time zone, ends with its delivery.
    return copy_context().run(Execution(delivery, config, consumer).run)


def _make_caches() -> None:
    """A thread's tasks share its cache backends, as its requests do under a web server.

    A backend that is made in a delivery's own context would connect again for each delivery.
    """
    for alias in caches:
        with suppress(Exception):  # one that cannot be made fails where it is used
            caches[alias]
    _has_caches.set(True)


class Execution:
    """One delivery on its way from a body to a Result. Its steps keep here what later ones need."""

    __slots__ = (
        "config",
        "configured",
        "consumer",
        "delivery",
        "entry",
        "message",
        "retries_by_hiding",
        "task",
        "time_limit",
    )

    message: Message
    """What the body says. Like all that follows, it is set by the step that finds it out."""
    entry: dispatch_table.Entry
    """The message's function in the dispatch table."""
    task: SafeTask
    configured: SafeTask | None
    """An instance of the configured class, if the task's class does not inherit from it."""
    time_limit: float
    """The task's, in seconds."""

    def __init__(self, delivery: Delivery, config: Config, consumer: Consumer) -> None:
        self.delivery = delivery
        self.config = config
        self.consumer = consumer
        self.retries_by_hiding = (
            consumer.can_hide and queue_rules(delivery.queue).retries_by_visibility
        )

    def run(self) -> Result:
        """Run what was delivered, log it, and tell the observers and the signal's receivers."""
        observers = dispatch_table.configured_observers(self.config)
        with observed(observers, "delivering", lambda each: each.delivering(self.delivery)):
            return self._run_and_log()

    def _run_and_log(self) -> Result:
        started = clock.monotonic()
        delivery = self.delivery
        result = self._run_to_result()
        if result.outcome in _WAITS_AS_COPY and self._may_wait_as_copy():
            result = self._wait_as_copy(result)
        delivery.outcome, delivery.exception = result.outcome, result.exception
        self._set_fate(result)
        milliseconds = (clock.monotonic() - started) * 1000
        log_outcome(delivery, result, self.config, milliseconds=milliseconds)
        if delivery_finished.receivers:
            delivery_finished.send_robust(
                sender=run, delivery=delivery, outcome=result.outcome, exception=result.exception
            )
        return result

    def _run_to_result(self) -> Result:
        try:
            self.delivery.message = self.message = self._decode_message()
            self._check_age()
            return self._run_unless_known()
        except (MessageError, UnknownFunction) as exc:
            refusal = Result(
                outcome=_REFUSALS[type(exc)], reason=str(exc), exception=exc, final=True
            )
            return self._send_to_dead_letter_queue(refusal)
        except LeaseError as exc:
            outcome = _REFUSALS[type(exc)]
            return Result(
                outcome=outcome,
                reason=str(exc),
                exception=exc,
                acknowledged=outcome is Outcome.DUPLICATE,
                retry_after=exc.retry_after,
            )
        except ConfigurationError:
            raise
        except BaseException as exc:  # such as a SystemExit of a module that is imported
            is_of_caller = isinstance(exc, TimeLimitExceeded) and self.config.execute_synchronously
            if is_of_caller or is_for_the_process(exc):
                raise
            return self._failed_outside(exc)

    @property
    def _is_periodic(self) -> bool:
        """Whether this is a periodic task of cron.yaml, which has no message of ours."""
        return bool(self.delivery.task_name) and not self.delivery.body.strip()

    def _decode_message(self) -> Message:
        delivery, config = self.delivery, self.config
        if not self._is_periodic:
            return Message.decode(
                delivery.body,
                queue=delivery.queue,
                keys=config.signing_keys,
                default_id=delivery.message_id,
                location=delivery.location or self.config.location_of(delivery.queue),
            )
        name = str(delivery.task_name)
        if name not in config.periodic_tasks:
            variable = PERIODIC_TASKS.variable
            raise NotAllowed(f"periodic task {name!r} is not in {variable}")
        if delivery.message_id is None:
            return Message(function=name)
        return Message(function=name, id=delivery.message_id)

    def _check_age(self) -> None:
        """Raise BadSignature for a message whose signature is too old to be accepted."""
        limit = self.config.max_age
        if limit is None or self._is_periodic:
            return
        message, variable = self.message, MAX_AGE.variable
        if message.sent_at is None:
            raise BadSignature(f"the message does not say when it was sent, and {variable} is set")
        age = time.time() - max(message.sent_at, message.not_before or 0)
        if age > limit.total_seconds():
            raise BadSignature(f"too old: sent {age:.0f} s ago; {variable} is {limit}")

    def _run_unless_known(self) -> Result:
        """Run the message, unless this process runs it already or has finished it."""
        if (key := key_of(self.delivery)) is None:
            return self._run_message()
        if not RECENT.begin(key):
            return self._delivered_again(key)
        is_finished = False
        try:
            result = self._run_message()
            is_finished = result.acknowledged
        finally:
            RECENT.end(key, is_finished=is_finished)
        return result

    def _delivered_again(self, key: int) -> Result:
        running = RECENT.seconds_running(key)
        is_behind_proxy = not self.consumer.can_hide and self.delivery.deadline is None
        if is_behind_proxy:
            logger.warning(
                "task delivered again id=%s function=%s is_running=%s seconds=%.0f: nobody waited "
                "for its answer; keep nginx's proxy_read_timeout, 60 s by default, above the "
                "task's time limit",
                quoted(self.message.id),
                quoted(self.message.function),
                running is not None,
                RECENT.seconds_taken(key) if running is None else running,
            )
        if running is None:
            reason = "this process has finished the message before"
            return Result(outcome=Outcome.DUPLICATE, reason=reason, acknowledged=True)
        return Result(
            outcome=Outcome.RUNNING,
            reason="this process is running the message",
            retry_after=_RETRY_RUNNING_SECONDS,
        )

    def _run_message(self) -> Result:
        message = self.message
        self.entry = dispatch_table.entry(message.function, self.config)
        if message.not_before is not None and (wait := message.not_before - time.time()) > 0:
            return self._wait_until_due(wait)
        if self.retries_by_hiding:
            message.attempt += self.delivery.earlier_runs
        try:
            self._make_task()
            self.consumer.task_starts(self.time_limit)
        except NoTimeLeft as exc:
            return Result(outcome=Outcome.OVERDUE, reason=str(exc))
        except (MalformedMessage, ConfigurationError, TimeLimitExceeded):
            raise
        except BaseException as exc:  # from an __init__() or a limit of the project's own
            if is_for_the_process(exc):
                raise
            return self._failed_outside(exc)
        return self._run_task()

    def _wait_until_due(self, seconds: float) -> Result:
        """Send a message again whose delay is longer than SQS allows, unless it was cancelled."""
        if seconds > _MAX_WAIT_SECONDS:
            raise MalformedMessage(f"not_before is more than {MAX_DELAY_DAYS} days ahead")
        if marks.is_cancelled(self.message.id, self.config):
            return self._end_cancelled()
        return self._send_again(self.message, seconds, Outcome.DEFERRED)

    def _is_overdue(self) -> bool:
        """Whether only the time that the request has waited makes its task end too late."""
        waited, patience = self.delivery.waited, self.delivery.proxy_timeout
        return waited is not None and self.time_limit <= patience < waited + self.time_limit

    def _make_task(self) -> None:
        self.task, self.configured = self.entry.make_task()
        if self.message.options:
            apply_received_options(self.task, self.message.options)
        self.task.delivery = self.delivery
        if self.configured is not None:
            self.configured.delivery = self.delivery
        self.time_limit = time_limit_of(self.task)

    def _run_task(self) -> Result:
        try:
            lease = self._take_lease()
        except TaskCancelled:
            return self._end_cancelled()
        if lease and lease.paused_since is not None and self._may_wait_for_resume():
            lease.give_up()
            return self._wait_for_resume(lease.paused_since)
        if self._is_overdue():  # asked last: a message that is done already is not to come again
            if lease:
                lease.give_up()
            return Result(outcome=Outcome.OVERDUE, reason="the request waited for too long")
        try:
            result = self._run_observed(lease)
        except BaseException:
            if lease:
                lease.give_up()
            raise
        if lease:
            _update_lease(lease, result)
        return result

    def _take_lease(self) -> Lease | None:
        """Take the lease, if there is one. Raises TaskCancelled, or a LeaseError."""
        config, message = self.config, self.message
        if config.lease_cache is None or config.execute_synchronously:
            if marks.is_cancelled(message.id, config):
                raise TaskCancelled(WHY_CANCELLED)
            return None
        lease = Lease(
            config.lease_cache, message, queue=self.delivery.queue, time_limit=self.time_limit
        )
        lease.take(asks_for_pause=not self.consumer.can_hide)
        return lease

    def _may_wait_as_copy(self) -> bool:
        """Return True if a copy can wait for the lease without being received.

        Without a lease, nothing would know the copy as the same message.
        """
        return (
            self.config.lease_cache is not None
            and not self.consumer.can_hide
            and self.delivery.receive_count >= MAX_WAITING_RECEIVES
            and queue_rules(self.delivery.queue).takes_delay
        )

    def _wait_as_copy(self, refused: Result) -> Result:
        """Send a message again that waits for its lease, so that no receive is spent meanwhile."""
        delay = refused.retry_after or _RETRY_RUNNING_SECONDS
        result = self._send_again(self.message, delay, Outcome.DEFERRED)
        reason = f"{refused.reason}; the message waits for {delay:.0f} s"
        return replace(result, reason=reason) if result.acknowledged else refused

    def _end_cancelled(self) -> Result:
        """End a task that does not run. Observers see that before the message is deleted."""
        exc = TaskCancelled(WHY_CANCELLED)
        self.delivery.outcome, self.delivery.exception = Outcome.CANCELLED, exc
        observers = self.entry.observers
        with observed(observers, "cancelling", lambda each: each.cancelling(self.delivery)):
            return _cancelled_result(exc)

    def _may_wait_for_resume(self) -> bool:
        """Whether the message can wait as a delayed copy. A poller does not receive it at all."""
        if queue_rules(self.delivery.queue).takes_delay:
            return True
        if (repeated := REFUSALS.repeated("paused-fifo")) is not None:
            logger.warning(
                "queue is paused, but its tasks run queue=%s%s: a message of a FIFO queue cannot "
                "wait as a delayed copy; only beanstalk_worker pauses such a queue",
                quoted(self.delivery.queue), repeated,
            )  # fmt: skip
        return False

    def _wait_for_resume(self, paused_since: float) -> Result:
        """Send the message again, so that it waits without being received.

        It waits for half as long as the queue has been paused. So it is sent about 20 times in
        the first hour of a pause, and it does not come much later after a short one.
        """
        delay = (time.time() - paused_since) / 2
        delay = min(max(delay, MIN_PAUSED_SECONDS), MAX_DELAY_SECONDS)
        result = self._send_again(self.message, delay, Outcome.DEFERRED)
        reason = f"the queue is paused; the message waits for {delay:.0f} s"
        return replace(result, reason=reason) if result.acknowledged else result

    def _run_observed(self, lease: Lease | None) -> Result:
        running = RUNNING.task(self.message, self.delivery, self.config)
        cut = self._send_cut_task(running)
        observers, task = self.entry.observers, self.task
        with observed(observers, "attempting", lambda each: each.attempting(task, self.delivery)):
            result = cut or self._run_attempt(running, self._to_call_when_done(lease))
            self._set_fate(result)
        return result

    def _to_call_when_done(self, lease: Lease | None) -> Callable[[], None] | None:
        """What marks the task as done when its ``run`` has returned, before its hooks run.

        None where process() is the project's own: more than ``run`` has to succeed then.
        """
        hooked = filter(None, (self.task, self.configured))
        return lease.done if lease and not any(map(has_own_process, hooked)) else None

    def _run_attempt(self, running: RunningTask, on_done: Callable[[], None] | None) -> Result:
        before = process_state()
        with running:
            attempt = run_attempt(
                self.task,
                self.message.args,
                self.message.kwargs,
                delivery=self.delivery,
                configured=self.configured,
                on_done=on_done,
            )
            if not self.config.execute_synchronously:  # the caller may be a log handler
                put_right(self.message, before)
            if attempt.outcome is not Outcome.DONE:
                FILES.are_suspect = True
                if not can_open_files():
                    running.count_as_cut()
            result = self._result_of(attempt)
        if result.acknowledged:
            running.forget_cuts()
        return result

    def _send_cut_task(self, running: RunningTask) -> Result | None:
        """Send a task that has ended its process too often to the dead-letter queue.

        None: it has to run. Observers of a sent one see an attempt without a run: its outcome is
        CUT from its start.
        """
        if running.times_cut < MAX_CUTS:
            return None
        reason = f"its process ended or ran out of files {running.times_cut} times"
        result = self._send_to_dead_letter_queue(
            Result(outcome=Outcome.CUT, reason=reason, exception=TaskCut(reason), final=True)
        )
        if not result.dead_lettered:
            return None
        self.delivery.outcome, self.delivery.exception = result.outcome, result.exception
        running.forget_cuts()  # moved back to its queue, it is to run
        return result

    def _result_of(self, attempt: Attempt) -> Result:
        if attempt.outcome is Outcome.DONE:
            return _DONE
        if attempt.outcome is Outcome.RETRY:
            return self._send_retry(attempt)
        if attempt.outcome is Outcome.CANCELLED:
            return _cancelled_result(attempt.exception)
        delay, exception = attempt.retry_after, attempt.exception
        if delay is not None and not self.retries_by_hiding:  # redelivery backs off, too
            number = self.message.counted_attempt + self.delivery.earlier_runs
            delay = retry_delay(self.task, exception, number)
        is_timeout = attempt.outcome is Outcome.TIMED_OUT
        result = Result(
            outcome=attempt.outcome,
            reason="the task timed out" if is_timeout else "the task failed",
            exception=exception,
            acknowledged=self._acknowledges_failures,
            retry_after=delay,
            final=attempt.is_final,
        )
        return self._send_to_dead_letter_queue(result) if result.final else result

    def _send_retry(self, attempt: Attempt) -> Result:
        delay = attempt.retry_after or 0.0
        if self.retries_by_hiding and delay <= _MAX_HIDDEN_SECONDS:
            return Result(outcome=Outcome.RETRY, exception=attempt.exception, retry_after=delay)
        received = self._decode_message()  # the task may have changed its arguments
        copy = replace(
            self.message,
            args=received.args,
            kwargs=received.kwargs,
            attempt=self.message.attempt + 1,
            not_before=None,
        )
        observers = self.entry.observers
        with observed(observers, "retrying", lambda each: each.retrying(self.delivery)):
            result = self._send_again(copy, delay, Outcome.RETRY)
        return replace(result, exception=attempt.exception)

    def _set_fate(self, result: Result) -> None:
        """Tell observers what becomes of the message of a failed task."""
        is_failure = OUTCOMES[result.outcome].is_failure
        is_over = result.final or result.acknowledged or self.config.execute_synchronously
        self.delivery.is_final = is_failure and is_over
        self.delivery.is_dead_lettered = result.dead_lettered

    @property
    def _acknowledges_failures(self) -> bool:
        return self.config.on_failure == "acknowledge"

    def _failed_outside(self, exc: BaseException) -> Result:
        message = self.delivery.message
        logger.error(
            "SafeTask failed outside of its run() id=%s function=%s error=%s",
            quoted(message and message.id), quoted(message and message.function),
            quoted_error(exc), exc_info=exc,
        )  # fmt: skip
        return Result(
            outcome=Outcome.FAILED,
            reason="the task failed",
            exception=exc,
            acknowledged=self._acknowledges_failures,
        )

    def _send_again(self, message: Message, delay: float, outcome: Outcome) -> Result:
        """Acknowledge the message only if its successor was sent."""
        try:
            self.consumer.resend(message, delay, self.delivery)
        except BeanstalkDispatchError as exc:
            logger.error(
                "message could not be sent again id=%s function=%s error=%s",
                quoted(message.id), quoted(message.function), quoted_error(exc),
            )  # fmt: skip
            return Result(outcome=Outcome.FAILED, reason="could not be sent again", exception=exc)
        return Result(outcome=outcome, acknowledged=True)

    def _send_to_dead_letter_queue(self, result: Result) -> Result:
        """Send the message to the dead-letter queue, if there is one.

        A message that this queue did not take is not acknowledged.
        """
        alias = self.config.dead_letter_queue
        if not alias or self.config.execute_synchronously:
            return result
        is_taken = dead_letters.send(
            self.delivery, self.config, alias=alias,
            outcome=result.outcome, exception=result.exception,
        )  # fmt: skip
        return replace(result, acknowledged=is_taken, dead_lettered=is_taken)


def _cancelled_result(exc: BaseException | None) -> Result:
    reason = str(exc) or "the task has ended itself"
    return Result(outcome=Outcome.CANCELLED, reason=reason, exception=exc, acknowledged=True)


def _update_lease(lease: Lease, result: Result) -> None:
    is_handed_on = result.outcome in _HANDED_ON and result.acknowledged
    if result.outcome is Outcome.DONE:
        lease.done()
    elif result.dead_lettered or is_handed_on:
        lease.handed_on()
    else:
        lease.give_up()
