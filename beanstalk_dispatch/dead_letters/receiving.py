"""The messages that are received from a dead-letter queue to be shown, and released again.

SQS cannot show a message without receiving it. Each receive hides at most ten messages for a time,
and raises their receive count. So only a dead-letter queue is sampled: in a source queue the
receive count leads to the dead-letter queue.
"""

from __future__ import annotations

import time
from typing import Final

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.queue import RECEIVED_ATTRIBUTES, Queue, Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .dead_letter import SOURCE_ATTRIBUTE

HIDE_SECONDS: Final = 120
"""Seconds that a message is hidden at most: after that it is visible again by itself."""

_WAIT_SECONDS: Final = 1
"""Seconds of a long poll. Only a long poll asks all of SQS's servers.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html
"""
_MAX_REPEATS: Final = 20
"""The number of receives in a row without a new message after which the sample ends."""
_RELEASE_ATTEMPTS: Final = 4


class HeldMessages:
    """The messages that are received and held back until ``close``, as in ``closing`` blocks."""

    def __init__(self, queue: Queue, *, hide: int = HIDE_SECONDS) -> None:
        self._queue = queue
        self._hide = hide
        self._held: dict[str, Received] = {}
        self._repeats = 0
        self.is_over = False
        """True if the last receive brought nothing, or nothing new for a long time."""
        self.still_hidden = 0
        """The number of messages that could not be released.

        They are visible after ``hide`` seconds.
        """

    def receive(self, count: int = MAX_BATCH_ENTRIES) -> list[Received]:
        """Receive up to ``count`` messages that are not held yet. Raise SendError if that fails."""
        received = self._queue.receive(
            count=count,
            wait=_WAIT_SECONDS,
            visibility=self._hide,
            attributes=[*RECEIVED_ATTRIBUTES, SOURCE_ATTRIBUTE],
        )
        new = [each for each in received if each.message_id not in self._held]
        self._held.update((each.message_id, each) for each in received)
        self._repeats = 0 if new else self._repeats + 1
        self.is_over = not received or self._repeats > _MAX_REPEATS
        return new

    def settle(self, received: Received) -> None:
        """Forget a message, because it is deleted or visible again."""
        self._held.pop(received.message_id, None)

    def close(self) -> None:
        """Make the held messages visible again. Set ``still_hidden``, and raise no SendError."""
        for attempt in range(_RELEASE_ATTEMPTS):
            time.sleep(attempt and 2.0 ** (attempt - 2))
            if self._release_once():
                break
        self.still_hidden = len(self._hidden_messages())

    def _release_once(self) -> bool:
        """Try once to release each message. Return True if none is left that can be released."""
        hidden = self._hidden_messages()
        for first in range(0, len(hidden), MAX_BATCH_ENTRIES):
            batch = hidden[first : first + MAX_BATCH_ENTRIES]
            try:
                refused = self._queue.change_visibility_batch(batch, [0] * len(batch))
            except SendError:
                return False
            kept = {each.message.message_id for each in refused if not each.is_final}
            for each in batch:
                if each.message_id not in kept:
                    self.settle(each)
        return not self._held

    def _hidden_messages(self) -> list[Received]:
        """Return the held messages, without those that are visible again by themselves."""
        self._held = {key: each for key, each in self._held.items() if each.is_hidden}
        return list(self._held.values())
