"""Delivery: the facts of one receive of one message; and RunView: what became of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from .message import Message
from .outcomes import Outcome

DEFAULT_PROXY_TIMEOUT: Final = 60.0
"""Seconds that nginx waits for an answer, unless it is configured otherwise.

https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_read_timeout
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One receive of one message. Times are Unix seconds.

    A RunView says what becomes of it.
    """

    body: bytes | str = field(default=b"", repr=False)  # a traceback shows locals by their repr
    """The message as SQS delivered it."""
    queue: str = ""
    """The queue's name, not its URL or alias."""
    location: str | None = None
    """The queue's region and account, where the consumer knows them. The daemon does not say."""
    message_id: str | None = None
    """The id that SQS gave the message; a retry is another SQS message."""
    receive_count: int = 1
    """How often SQS has handed out this message, this time included."""
    unrun_receives: int = 0
    """How many of the earlier receives are known not to have started the task."""
    first_received_at: float | None = None
    sent_at: float | None = None
    """When SQS got the message."""
    task_name: str | None = None
    """The name of a periodic task of cron.yaml, which has no message of ours."""
    scheduled_at: float | None = None
    """When a periodic task was due."""
    group_id: str | None = None
    """The message group, where the consumer knows it."""
    waited: float | None = None
    """Seconds between the proxy's receipt of the request and its start here, if the proxy says."""
    proxy_timeout: float = DEFAULT_PROXY_TIMEOUT
    """Seconds after which the proxy stops waiting for the answer."""
    deadline: float | None = None
    """When the task must have ended, by ``clock.monotonic``, because the consumer itself ends then.
    None if the consumer waits for the task's time limit."""

    @property
    def earlier_runs(self) -> int:
        """Return how often the task has started before, as far as it is known here."""
        return max(self.receive_count - 1 - self.unrun_receives, 0)

    @property
    def is_periodic(self) -> bool:
        """Return True for a periodic task of cron.yaml: it has a name and an empty body."""
        return bool(self.task_name) and not self.body.strip()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; ``from_json`` makes the same delivery of them."""
        fields = asdict(self)
        if isinstance(self.body, bytes):
            fields["body"] = {"base64": base64.b64encode(self.body).decode("ascii")}
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Delivery:
        """Make a delivery of what ``to_json`` returned."""
        body = fields["body"]
        if isinstance(body, Mapping):
            body = base64.b64decode(body["base64"])
        return cls(**{**fields, "body": body})


class RunView(Protocol):
    """A run, as hooks, observers and receivers of signals see it: read-only.

    It has the facts of its delivery by their names, too.
    """

    @property
    def delivery(self) -> Delivery:
        """Return the facts of the receive."""

    @property
    def message(self) -> Message | None:
        """Return what the body says; None if it cannot be decoded."""

    @property
    def outcome(self) -> Outcome | None:
        """Return what became of the task, from the end of ``run`` on.

        RETRY means that it will run again.
        """

    @property
    def exception(self) -> BaseException | None:
        """Return what the task or the delivery has failed with."""

    @property
    def return_value(self) -> object:
        """Return what the task's ``run`` has returned. Known before the task's hooks."""

    @property
    def is_final(self) -> bool:
        """Return True if no retry follows a failure. Known after the task's hooks.

        The retries are spent, the message can never run, the failure is acknowledged, or there is
        no queue.
        """

    @property
    def is_dead_lettered(self) -> bool:
        """Return True if the dead-letter queue has the message. Known after the task's hooks."""

    @property
    def cancelled(self) -> bool:
        """Return True if the task was cancelled. Asks the cache once in a second at most."""

    @property
    def headers(self) -> dict[str, str]:
        """Return the strings that a retry of the message gets besides its own, to add to."""

    @property
    def notes(self) -> dict[str, Any]:
        """Return what observers keep from one of their methods to the next, by names of theirs."""

    @property
    def body(self) -> bytes | str:
        """Return the message as SQS delivered it."""

    @property
    def queue(self) -> str:
        """Return the queue's name."""

    @property
    def message_id(self) -> str | None:
        """Return the id that SQS gave the message."""

    @property
    def receive_count(self) -> int:
        """Return how often SQS has handed out this message, this time included."""

    @property
    def sent_at(self) -> float | None:
        """Return when SQS got the message, in Unix seconds."""

    @property
    def first_received_at(self) -> float | None:
        """Return when SQS first handed out the message, in Unix seconds."""

    @property
    def group_id(self) -> str | None:
        """Return the message group, where the consumer knows it."""

    @property
    def task_name(self) -> str | None:
        """Return the name of a periodic task of cron.yaml."""

    @property
    def scheduled_at(self) -> float | None:
        """Return when a periodic task was due, in Unix seconds."""
