"""The redrive of a dead letter: the queue it goes to, and the message that is sent there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.variables import QUEUES, SIGNING_KEYS
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, UnknownQueue
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.messages.message import now
from beanstalk_dispatch.messages.signatures import is_signed
from beanstalk_dispatch.sqs.opening import open_beside, open_queue
from beanstalk_dispatch.sqs.parameters import check_size, send_parameters
from beanstalk_dispatch.sqs.queue import Queue

from .dead_letter import ReceivedDeadLetter, decode


class NotRedriven(BeanstalkDispatchError):
    """The error of a dead letter that cannot be redriven as asked. It stays where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """A sender of one dead letter after the other to the queue that it came from."""

    queue: Queue
    """The dead-letter queue."""
    sources: Collection[str]
    """The own names of the queues whose dead-letter queue it is."""
    config: Config
    to: Queue | None = None
    """The queue to send every dead letter to, instead of its own."""
    reset_attempts: bool = False
    """True if the task gets all its retries again."""

    def send(self, dead_letter: ReceivedDeadLetter) -> None:
        """Send a dead letter back. Raise NotRedriven or SendError if it cannot be sent.

        It is sent as it is: a consumer reads the message inside it, with its signature and its id,
        as the next attempt. If it has to be rewritten, see Message.decode() for other errors.
        """
        target, body, parameters = self._prepare_request(dead_letter)
        target.send(body, parameters)

    def check(self, dead_letter: ReceivedDeadLetter) -> None:
        """Raise the errors that ``send`` would raise before its request."""
        self._prepare_request(dead_letter)

    def target(self, dead_letter: ReceivedDeadLetter) -> Queue:
        """Return the queue that a dead letter is sent to.

        Raise NotRedriven or SendError if there is none.

        The dead letter says where it came from, and anyone who may send to the dead-letter queue
        can write one. So only a queue that is known otherwise is a target.
        """
        if self.to is not None:
            return self.to
        if not dead_letter.queue:
            raise NotRedriven("SQS does not say which queue it came from; name one with --to")
        if dead_letter.queue == self.queue.name:
            raise NotRedriven("it came from this queue itself; name another one with --to")
        if dead_letter.queue in self.sources:
            return open_beside(self.queue, dead_letter.queue)
        if alias := self.config.alias_of(dead_letter.queue):
            return open_queue(alias)
        raise NotRedriven(
            f"its queue {dead_letter.queue} has no redrive policy that names {self.queue.name}, "
            f"and is not in {QUEUES.variable}; name a queue with --to"
        )

    def _prepare_request(
        self, dead_letter: ReceivedDeadLetter
    ) -> tuple[Queue, str, dict[str, object]]:
        """Return the queue, the body and the parameters of the request that redrives."""
        target = self.target(dead_letter)
        body = dead_letter.received.body
        is_same_queue = target.name == (dead_letter.queue or target.name)
        locations = {target.location, self.queue.location} - {None}
        if self.reset_attempts or not is_same_queue or len(locations) > 1:
            body = self._rewrite_message(dead_letter, target)
        check_size(body, function=dead_letter.function)
        return target, body, self._send_parameters(dead_letter, target)

    def _rewrite_message(self, dead_letter: ReceivedDeadLetter, target: Queue) -> str:
        """Return the message with its retries counted again, signed for the queue it is sent to."""
        keys, legacy = self.config.signing_keys, self.config.sends_base64
        if not keys and is_signed(dead_letter.received.body):
            raise NotRedriven(
                f"it is signed, so it can be changed only with {SIGNING_KEYS.variable}"
            )
        message = decode(dead_letter, self.config, queue=dead_letter.queue or target.name)
        if self.reset_attempts:
            message = replace(message, first_attempt=message.attempt)
            if self.config.max_age:
                # Its age counts from here. The time at which it was scheduled stays.
                message = replace(message, not_before=now())
        return message.encode(queue=target.name, keys=keys, legacy=legacy, location=target.location)

    def _send_parameters(self, dead_letter: ReceivedDeadLetter, target: Queue) -> dict[str, object]:
        group = dead_letter.received.attributes.get("MessageGroupId")
        # The id of the message itself may be one that SQS has seen in the last five minutes.
        once = f"redrive-{dead_letter.message_id}" if target.is_fifo else None
        parameters = send_parameters(
            target.address,
            group_id=group or (dead_letter.message_id if target.is_fifo else None),
            deduplication_id=once,
        )
        if dead_letter.received.sent_attributes:
            parameters["MessageAttributes"] = dead_letter.received.sent_attributes
        return parameters


def open_target(name: str, queue: Queue, sources: Collection[str]) -> Queue:
    """Open the queue for ``--to``: an alias, or a source queue by its own name.

    Raise UnknownQueue if it is neither.
    """
    if name in sources:
        return open_beside(queue, name)
    try:
        return open_queue(name)
    except UnknownQueue as exc:
        raise UnknownQueue(f"{exc}; source queues: {joined(sources)}") from None
