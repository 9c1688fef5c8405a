"""Destination: the queue of a call, resolved once from the name that its caller gave."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.conf.variables import DEAD_LETTER_QUEUE
from beanstalk_dispatch.exceptions import UnknownQueue
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.sqs.opening import open_address, resolve_address
from beanstalk_dispatch.sqs.parameters import check_size
from beanstalk_dispatch.sqs.queue import Queue


@dataclass(frozen=True, slots=True)
class Destination:
    """A queue with everything that a send needs to know of it. Making one makes no request."""

    name: str
    """The queue as its caller named it: an alias, or without aliases a name, URL or ARN."""
    address: QueueAddress
    config: Config
    is_local: bool
    """True if its calls are captured or run in this process, so that nothing is sent to SQS."""
    is_fifo: bool = field(compare=False)
    location: str | None = field(compare=False)
    """The region and account that a signature names; None without signing keys."""
    waits_for_commits: bool = field(compare=False)
    """``Config.waits_for_commits``."""
    is_commit_decided: bool = field(compare=False)
    """True if the project has said whether calls wait for the commit of a transaction."""
    is_base64: bool = field(compare=False)
    """True if its messages are in the format of 0.1, which has no id and no headers."""

    def open(self) -> Queue:
        """Return the open queue, which is looked up if only its name is known.

        Raise UnknownQueue or SendError.
        """
        return open_address(self.address, self.config)

    def open_early(self) -> None:
        """Open the queue, so that a caller whose calls are sent later learns of one that is wrong.

        A call that is stored needs no SQS, which may not answer now.
        """
        if not self.is_local and self.config.outbox != "always":
            self.open()

    def seal(self, message: Message, text: str) -> str:
        """Return the body that SQS gets for a message whose JSON is ``text``.

        Raise MessageTooLarge.
        """
        body = message.seal(
            text, queue=self.address.name, keys=self.config.signing_keys,
            location=self.location, legacy=self.is_base64,
        )  # fmt: skip
        check_size(body, function=message.function)
        return body


def resolve(name: str, config: Config, is_local: bool = False) -> Destination:
    """Return the destination that a caller names. Raise UnknownQueue if there is none."""
    if not isinstance(name, str):
        raise UnknownQueue(f"{name!r} is not the name of a queue; write one string")
    return _resolve(name, config, is_local)


@functools.lru_cache(maxsize=256)
def _resolve(name: str, config: Config, is_local: bool) -> Destination:
    address = resolve_address(name, config)
    if config.is_dead_letter_queue(address.name):
        raise UnknownQueue(
            f"{name!r} is {DEAD_LETTER_QUEUE.variable}, from which no worker runs tasks; name the "
            "queue of a worker, or correct that variable"
        )
    return Destination(
        name=name,
        address=address,
        config=config,
        is_local=is_local,
        is_fifo=address.is_fifo,
        location=address.location if config.signing_keys else None,
        waits_for_commits=config.waits_for_commits,
        is_commit_decided=config.sources["on_commit"] != "default"
        or config.has_policy("on_commit"),
        is_base64=config.sends_base64,
    )
