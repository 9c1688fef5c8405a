"""read: decode the body."""

from __future__ import annotations

from beanstalk_dispatch.conf.variables import PERIODIC_TASKS
from beanstalk_dispatch.exceptions import MessageError, NotAllowed
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.run import Run


def read(run: Run) -> None:
    """Set ``run.message``, or ``run.exception`` for ``accept``, which observers see happen."""
    try:
        run.message = decode(run)
    except MessageError as exc:
        run.exception = exc


def decode(run: Run) -> Message:
    """Return the message of the delivery, verified and decoded.

    Raise a MessageError if it is not one.
    """
    delivery, config = run.delivery, run.config
    if delivery.is_periodic:
        return _periodic_message(run)
    keys = config.signing_keys
    return Message.decode(
        delivery.body,
        queue=delivery.queue,
        keys=keys,
        default_id=delivery.message_id,
        location=(delivery.location or config.location_of(delivery.queue)) if keys else None,
    )


def _periodic_message(run: Run) -> Message:
    """Return the message of a periodic task of cron.yaml, which no key can sign."""
    name, message_id = str(run.delivery.task_name), run.delivery.message_id
    if name not in run.config.periodic_tasks:
        raise NotAllowed(f"periodic task {name!r} is not in {PERIODIC_TASKS.variable}")
    return Message(function=name) if message_id is None else Message(function=name, id=message_id)
