"""Message → listed function → SafeTask → Result: the one path of view, worker and eager mode."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from django.utils.module_loading import import_string

from . import sqs
from .conf import SETTINGS, Config, get_config
from .exceptions import (
    BadSignature,
    BeanstalkDispatchError,
    ConfigurationError,
    MalformedMessage,
    MessageError,
    NotAllowed,
    UnknownFunction,
)
from .message import Message
from .safe_task import Outcome, SafeTask
from .signals import delivery_finished
from .sqsd import Delivery

logger = logging.getLogger(__name__)

Resend = Callable[[Message, float, Delivery], None]
"""Put a message back on its queue, to be delivered after so many seconds."""

FAILURES: Final = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
_ACKNOWLEDGED: Final = frozenset({Outcome.DONE, Outcome.RETRY, Outcome.DEFERRED})
_REFUSALS: Final[dict[type[Exception], Outcome]] = {
    MalformedMessage: Outcome.MALFORMED,
    UnknownFunction: Outcome.UNKNOWN_FUNCTION,
    BadSignature: Outcome.BAD_SIGNATURE,
    NotAllowed: Outcome.NOT_ALLOWED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a delivery. ``reason`` holds no task data and no traceback.

    ``retry_after``: seconds after which the task's own policy would run a failure again.
    """

    outcome: Outcome
    reason: str = ""
    exception: BaseException | None = None
    retry_after: float | None = None

    @property
    def acknowledged(self) -> bool:
        """Whether SQS may delete the message."""
        if self.outcome is Outcome.DONE:
            return True
        if self.outcome in FAILURES:
            return get_config().on_failure == "acknowledge"
        return self.outcome in _ACKNOWLEDGED


_DONE: Final = Result(outcome=Outcome.DONE)


def run(body: bytes | str, delivery: Delivery, *, resend: Resend | None = None) -> Result:
    """Run what was delivered, and log one line about it. Raises ConfigurationError only.

    An empty body with a task name is a periodic task of cron.yaml. ``resend`` is how a retry
    or a delay beyond SQS's limit is put back; None sends a copy to the delivery's queue.
    """
    started = time.monotonic()
    config = get_config()
    try:
        message = _read(body, delivery, config)
        delivery = delivery.carrying(message, len(body))
        result = _run(message, delivery, config, resend or resend_copy)
    except (MessageError, UnknownFunction) as exc:
        result = Result(outcome=_REFUSALS[type(exc)], reason=str(exc), exception=exc)
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


def _run(message: Message, delivery: Delivery, config: Config, resend: Resend) -> Result:
    runnable = resolve(message.function, config)
    if message.not_before is not None and (wait := message.not_before - time.time()) > 0:
        return _resend(resend, message, wait, delivery, Outcome.DEFERRED)
    is_class = inspect.isclass(runnable)
    wrapper = _task_class(message.function, config)
    try:
        task = wrapper()
        if not is_class:
            task.run = runnable  # type: ignore[method-assign]
        if message.options:
            task.apply(message.options)
        task.delivery = delivery
        task.process(*message.args, **message.kwargs)
    except MalformedMessage:
        raise
    except Exception as exc:  # from an __init__() or process() of the project's own
        logger.exception("%s failed outside of its run()", message)
        return Result(outcome=Outcome.FAILED, reason="the task failed", exception=exc)
    if task._outcome is Outcome.DONE:
        return _DONE
    if task._outcome is Outcome.RETRY:
        copy = replace(message, attempt=message.attempt + 1, not_before=None)
        result = _resend(resend, copy, task._retry_delay or 0, delivery, Outcome.RETRY)
        return replace(result, exception=task._exception)
    reason = "the task timed out" if task._outcome is Outcome.TIMED_OUT else "the task failed"
    return Result(
        outcome=task._outcome,
        reason=reason,
        exception=task._exception,
        retry_after=task._retry_delay,
    )


def _resend(
    resend: Resend, message: Message, delay: float, delivery: Delivery, outcome: Outcome
) -> Result:
    """What was not put back must not be acknowledged."""
    try:
        resend(message, delay, delivery)
    except BeanstalkDispatchError as exc:
        logger.error("%s could not be sent again: %s", message, exc)
        return Result(outcome=Outcome.FAILED, reason="could not be sent again", exception=exc)
    return Result(outcome=outcome)


def resend_copy(message: Message, delay: float, delivery: Delivery) -> None:
    """Send a delayed copy to the queue the delivery came from.

    Beyond SQS's 15 minutes the copy carries ``not_before`` and is sent again when it arrives.
    """
    config = get_config()
    target = sqs.queue_named(delivery.queue)
    if delay > sqs.MAX_DELAY:
        message = replace(message, not_before=round(time.time() + delay, 3))
    body = message.encode(
        queue=target.name, keys=config.signing_keys, legacy=config.message_format == "base64"
    )
    sqs.check_size(body, function=message.function)
    target.send(body, target.send_options(delay=min(round(delay), sqs.MAX_DELAY)))


# --- the dispatch table ----------------------------------------------------------------------


@functools.lru_cache(maxsize=1024)
def resolve(name: str, config: Config) -> Any:
    """The function or SafeTask subclass a table name stands for, imported once.

    Raises UnknownFunction, whose text is what beanstalk-dispatch 0.1 answered.
    """
    if not config.table:
        raise UnknownFunction("No beanstalk dispatch table configured")
    path = config.table.get(name)
    if path is None:
        raise UnknownFunction(f"Requested function not found: {name}")
    try:
        runnable = locate(path)
    except Exception as exc:
        raise UnknownFunction(f"Unable to locate function: {path}") from exc
    if inspect.isclass(runnable) and not issubclass(runnable, SafeTask):
        raise UnknownFunction(f"Requested task is not a SafeTask subclass: {name}")
    if fault := _fault(runnable):
        raise UnknownFunction(f"Requested task {fault}: {name}")
    return runnable


def _fault(runnable: Any) -> str | None:
    if inspect.isclass(runnable):
        return None
    if isinstance(runnable, SafeTask):
        return "is a SafeTask instance; list its class or its function"
    if not callable(runnable):
        return f"is a {type(runnable).__name__}, not a function"
    if inspect.isgeneratorfunction(runnable) or inspect.isasyncgenfunction(runnable):
        return "is a generator function, which would never run"
    return None


@functools.lru_cache(maxsize=1)
def safe_task_class(config: Config) -> type[SafeTask]:
    """The class that wraps plain functions. Raises ConfigurationError."""
    variable = SETTINGS["safe_task"].variable
    try:
        wrapper = import_string(config.safe_task)
    except ImportError as exc:
        raise ConfigurationError(f"{variable}: cannot import {config.safe_task}: {exc}") from exc
    if not (inspect.isclass(wrapper) and issubclass(wrapper, SafeTask)):
        raise ConfigurationError(f"{variable}: {config.safe_task} is not a SafeTask subclass")
    return wrapper


@functools.lru_cache(maxsize=1024)
def _task_class(name: str, config: Config) -> type[SafeTask]:
    """The class that runs a table entry: the configured one, which a listed class gets as a base.

    Raises UnknownFunction or ConfigurationError.
    """
    runnable: Any = resolve(name, config)
    configured: Any = safe_task_class(config)
    if not inspect.isclass(runnable):
        runnable = configured
    elif not (issubclass(runnable, configured) or issubclass(configured, runnable)):
        own = {"__module__": runnable.__module__, "__qualname__": runnable.__qualname__}
        try:
            runnable = type(runnable.__name__, (runnable, configured), own)
        except TypeError as exc:
            variable = SETTINGS["safe_task"].variable
            raise ConfigurationError(
                f"{variable}: {config.safe_task} cannot be a base of {name}: {exc}"
            ) from exc
    task_class: type[SafeTask] = runnable
    return task_class


def start() -> None:
    """Let the configured class set itself up. A failure is logged, and the checks tell it too."""
    try:
        config = get_config()
        if config.sources["safe_task"] != "default":
            safe_task_class(config).ready()
    except Exception as exc:
        logger.error("start of the SafeTask failed: %s", exc)


def locate(path: str) -> Any:
    """Import ``package.module.attribute``; the attribute may itself be dotted (a static method)."""
    try:
        return import_string(path)
    except ModuleNotFoundError as exc:
        parent, _, attribute = path.rpartition(".")
        if exc.name != parent or "." not in parent:
            raise
        try:
            return getattr(locate(parent), attribute)
        except (ImportError, AttributeError):
            raise exc from None


# --- the log ---------------------------------------------------------------------------------


def _log(result: Result, delivery: Delivery, *, milliseconds: float) -> None:
    level = logging.INFO if result.acknowledged else logging.ERROR
    if not logger.isEnabledFor(level):
        return
    message = delivery.message
    extra = f" reason={_cause(result)!r}" if result.reason else ""
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
