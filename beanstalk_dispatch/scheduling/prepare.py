"""Checks calls, and makes of each a message with its body and SendMessage's parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import MESSAGE_FORMAT
from beanstalk_dispatch.exceptions import InvalidArgument, InvalidCall
from beanstalk_dispatch.messages.message import MAX_DELAY_DAYS, Message, is_time, now
from beanstalk_dispatch.running.definitions.options import options_to_send
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.sqs.parameters import send_parameters
from beanstalk_dispatch.sqs.quotas import MAX_DELAY_SECONDS

from .call import Call
from .call_check import check_call
from .destination import Destination, resolve
from .task_names import table_name
from .unique import fair_group_of, unique_of

_ARGUMENTS_FORM = "args is a list or tuple, kwargs a dict; Call(function, [1], {'a': 2})"


@dataclass(slots=True)
class Prepared:
    """A checked call: the message, its body, and SendMessage's parameters for it."""

    message: Message
    text: str = field(repr=False)
    """The message as JSON, without headers and signature."""
    body: str = field(repr=False)
    """The body that SQS gets. It has the headers of observers once it is being sent."""
    send_parameters: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    """Those that observers add to the message's when it is sent."""


def prepare_calls(
    queue: str, calls: Iterable[Call], config: Config, *, is_local: bool
) -> tuple[Destination, list[Prepared]]:
    """Check calls, and encode them for the queue that ``queue`` names. No request is made.

    Raise the SchedulingError or UnknownFunction of the first that is wrong.
    """
    if isinstance(calls, Call):
        raise InvalidCall("expected several calls; write schedule_many(queue, [Call('name', [1])])")
    checked = [(call, *_checked_message(call, config, is_local=is_local)) for call in calls]
    destination = resolve(queue, config, is_local)
    is_base64, has_own = destination.is_base64, destination.is_fifo or config.policies
    prepared = []
    for call, message, delay in checked:
        if is_base64:
            _refuse_in_base64(message)
        parameters: dict[str, Any] = {}
        if has_own or delay or call.group_id or call.deduplication_id:
            parameters = _parameters_of(call, message, delay, destination)
        sent = message
        try:
            text = sent.write(legacy=is_base64)
        except InvalidArgument as exc:
            from .conversion import convert_arguments  # noqa: PLC0415 - for such a call only

            sent = convert_arguments(message, exc, config, is_local=is_local)
            text = sent.write()
        prepared.append(Prepared(sent, text, destination.seal(sent, text), parameters))
    return destination, prepared


def _parameters_of(
    call: Call, message: Message, delay: int, destination: Destination
) -> dict[str, Any]:
    """Return SendMessage's parameters for a call that may have some. Raise InvalidCall."""
    group_id, deduplication_id = call.group_id, call.deduplication_id
    if group_id is None and not destination.is_fifo:
        group_id = fair_group_of(call, message.function, destination.config)
    if not (delay or group_id or deduplication_id or destination.is_fifo):
        return {}
    return send_parameters(
        destination.address,
        delay=delay,
        group_id=group_id,
        deduplication_id=deduplication_id,
        message_id=message.id,
    )


def _refuse_in_base64(message: Message) -> None:
    """Raise InvalidCall for a moment that only messages in JSON can have."""
    if message.not_before is not None:
        needs, effect = f"a delay beyond {MAX_DELAY_SECONDS} s", "too early"
    elif message.not_after is not None:
        needs, effect = "expires", "too late"
    else:
        return
    raise InvalidCall(
        f"{message.function}: {needs} needs {MESSAGE_FORMAT.variable}=json; 0.1 workers would run "
        f"it {effect}"
    )


def _checked_message(call: Call, config: Config, *, is_local: bool) -> tuple[Message, int]:
    """Return a call's message, and its delay for SQS. Raise UnknownFunction or InvalidCall."""
    if not isinstance(call, Call):
        raise InvalidCall(
            f"expected a Call, got {type(call).__name__}; write schedule(queue, Call('name', [1])) "
            "or schedule_function(queue, 'name', 1)"
        )
    if not isinstance(call.kwargs, (dict, Mapping)):
        raise InvalidCall(_ARGUMENTS_FORM)
    delay = _delay_seconds(call.delay) if call.delay else 0
    name = table_name(call.function, config)
    may_be_unique = call.unique is not None or config.policies
    message = Message(
        function=name,
        args=call.args if isinstance(call.args, (list, tuple)) else _as_list(call.args),
        kwargs=call.kwargs,
        sent_at=now() if call.sent_at is None else _checked_sent_at(call.sent_at),
        options=options_to_send(call.function) if isinstance(call.function, SafeTask) else {},
        headers=_checked_headers(call.headers) if call.headers else {},
        not_before=round(time.time() + delay, 3) if delay > MAX_DELAY_SECONDS else None,
        not_after=None if call.expires is None else _end_of(call.expires, time.time() + delay),
        unique=unique_of(call, name, delay, config) if may_be_unique else {},
    )
    if config.table or config.tasks:
        check_call(name, message.args, message.kwargs, config, is_local=is_local)
    return message, min(delay, MAX_DELAY_SECONDS)


def _checked_sent_at(sent_at: float) -> float:
    if is_time(sent_at):
        return sent_at
    raise InvalidCall(
        f"sent_at {sent_at!r} is not a moment in Unix seconds, as moment.timestamp() returns it"
    )


def _checked_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    if isinstance(headers, Mapping) and all(
        isinstance(item, str) for pair in headers.items() for item in pair
    ):
        return dict(headers)
    raise InvalidCall("headers is a mapping of strings to strings")


def _as_list(args: object) -> list[Any]:
    if isinstance(args, Iterable) and not isinstance(args, str | bytes | Mapping):
        return list(args)
    raise InvalidCall(_ARGUMENTS_FORM)


def _end_of(expires: float | timedelta | datetime, due: float) -> float:
    """Return the moment at which a task that is due then expires, in Unix seconds."""
    if isinstance(expires, timedelta):
        expires = expires.total_seconds()
    if isinstance(expires, datetime):
        moment = expires.timestamp()
    elif isinstance(expires, int | float) and not isinstance(expires, bool):
        moment = due + expires
    else:
        raise InvalidCall(
            f"expires {expires!r} is not a number of seconds, a timedelta or a datetime"
        )
    if not (moment > due and is_time(moment)):
        raise InvalidCall(f"expires {expires!r} has passed when the task is due; name a later one")
    return round(moment, 3)


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
