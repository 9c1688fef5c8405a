"""Dead letters: a message that is not to run again, sent away with the reason."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from beanstalk_dispatch.conf.variables import DEAD_LETTER_QUEUE
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, SendError
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error, shortened, traceback_of
from beanstalk_dispatch.messages.message import now, wrap
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.parameters import check_size, send_parameters

from .run import Run

logger = logging.getLogger("beanstalk_dispatch.task.dead_letters")

MAX_EXCEPTION: Final = 1_000


def send(run: Run, *, alias: str, outcome: str) -> bool:
    """Send the delivered message to the queue ``alias`` as a dead letter.

    Return True if SQS took it. A message from that queue is not sent there again.
    """
    delivery = run.delivery
    try:
        target = open_queue(alias)
        if target.name == delivery.queue:
            raise SendError(
                f"the message was received from {target.name} itself; give "
                f"{DEAD_LETTER_QUEUE.variable} another queue"
            )
        dead_letter = wrap(
            delivery.body, _describe_reason(run, outcome),
            queue=delivery.queue, keys=run.config.signing_keys,
        )  # fmt: skip
        check_size(dead_letter, function=alias)
        options = {}
        if target.is_fifo:
            group = delivery.message_id or "dead-letters"
            options = send_parameters(target.address, group_id=group, message_id=group)
        target.send(dead_letter, options)
    except BeanstalkDispatchError as exc:
        logger.error(
            "dead letter not sent id=%s queue=%s error=%s",
            quoted(_task_id(run)), alias, quoted_error(exc),
        )  # fmt: skip
        return False
    return True


def _describe_reason(run: Run, outcome: str) -> Mapping[str, Any]:
    message, delivery = run.message, run.delivery
    return {
        "outcome": outcome,
        "exception": _exception_string(run.exception),
        "traceback": traceback_of(run.exception),
        "attempts": message.attempt if message else 1,
        "receive_count": delivery.receive_count,
        "id": _task_id(run),
        "function": message.function if message else delivery.task_name,
        "queue": delivery.queue,
        "at": now(),
    }


def _task_id(run: Run) -> str | None:
    return run.message.id if run.message else run.message_id


def _exception_string(exception: BaseException | None) -> str:
    try:
        description = f"{type(exception).__name__}: {exception}" if exception else ""
    except Exception:  # from a __str__() of the project's own
        description = type(exception).__name__
    return shortened(description, MAX_EXCEPTION)
