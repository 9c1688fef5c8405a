"""Delivery: the facts of one receive of one message. RunView: a run as a project sees it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .changed_fields import changed_fields
from .message import Message
from .outcomes import Outcome

DEFAULT_PROXY_TIMEOUT: Final = 60.0
"""The seconds that nginx waits for an answer, unless it is configured otherwise.

https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_read_timeout
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One receive of one message, with the facts that its consumer knows of it.

    Some of them are of SQS, and some of the proxy of an HTTP request; what a consumer does not know
    has its default. Times are Unix seconds, but for ``deadline``.
    The result of the delivery is on its run, which a project sees as a RunView.
    """

    body: bytes | str = field(default=b"", repr=False)  # a traceback shows locals by their repr
    """The message as SQS delivered it."""
    queue: str = ""
    """The queue's name, not its URL or alias."""
    location: str | None = None
    """The queue's region and account, if the consumer knows them. The daemon does not say."""
    message_id: str | None = None
    """The id that SQS gave the message; a retry is another SQS message."""
    receive_count: int = 1
    """The number of times that SQS has handed out this message, this time included."""
    max_receives: int | None = None
    """The number of receives after which SQS moves the message away, if the consumer knows it."""
    unrun_receives: int = 0
    """The number of earlier receives that are known not to have started the task."""
    first_received_at: float | None = None
    sent_at: float | None = None
    """The time when SQS got the message."""
    task_name: str | None = None
    """The name of a periodic task of cron.yaml, which has no message of ours."""
    scheduled_at: float | None = None
    """The time when a periodic task was due."""
    group_id: str | None = None
    """The message group, if the consumer knows it."""
    waited: float | None = None
    """The seconds from the proxy's receipt of the request to its start here, if the proxy says."""
    proxy_timeout: float = DEFAULT_PROXY_TIMEOUT
    """The seconds after which the proxy stops waiting for the answer."""
    deadline: float | None = None
    """The latest end of the task by ``clock.monotonic``, because its consumer ends then.

    None if the consumer waits for the task's time limit.
    """

    @property
    def earlier_runs(self) -> int:
        """Return the number of earlier starts of the task, as far as it is known here."""
        return max(self.receive_count - 1 - self.unrun_receives, 0)

    @property
    def is_periodic(self) -> bool:
        """Return True for a periodic task of cron.yaml: it has a name and an empty body."""
        return bool(self.task_name) and not self.body.strip()

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults as JSON values, for ``from_json``."""
        values = changed_fields(self)
        if isinstance(self.body, bytes):
            values["body"] = {"base64": base64.b64encode(self.body).decode("ascii")}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Delivery:
        """Return the delivery whose ``to_json`` returned ``values``."""
        if isinstance(body := values.get("body"), Mapping):
            values = {**values, "body": base64.b64decode(body["base64"])}
        return cls(**values)


class RunView(Protocol):
    """The read-only face of a run for hooks, observers and receivers of signals.

    It has the facts of its delivery by their names, too.
    """

    @property
    def delivery(self) -> Delivery:
        """Return the facts of the receive."""

    @property
    def message(self) -> Message | None:
        """Return the message in the body; None if it cannot be decoded."""

    @property
    def outcome(self) -> Outcome | None:
        """Return the outcome of the task. It is known from the end of ``run``.

        RETRY means that it will run again.
        """

    @property
    def exception(self) -> BaseException | None:
        """Return the exception with which the task or the delivery has failed."""

    @property
    def return_value(self) -> object:
        """Return the return value of the task's ``run``. It is known before the task's hooks."""

    @property
    def is_final(self) -> bool:
        """Return True if no retry follows a failure. It is known after the task's hooks.

        The retries are spent, the message can never run, the failure is acknowledged, SQS moves the
        message to its dead-letter queue now, or there is no queue.
        """

    @property
    def max_receives(self) -> int | None:
        """Return the number of receives after which SQS moves the message away, if it is known."""

    @property
    def is_dead_lettered(self) -> bool:
        """Return True if the dead-letter queue has the message: known after the task's hooks."""

    @property
    def cancelled(self) -> bool:
        """Return True if the task was cancelled. Ask the cache once in a second at most."""

    @property
    def headers(self) -> dict[str, str]:
        """Return a dictionary for headers that a retry of the message gets besides its own."""

    @property
    def notes(self) -> dict[str, Any]:
        """Return the dictionary in which observers keep values, by names of their own."""

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
        """Return the number of times that SQS has handed out this message, this time included."""

    @property
    def sent_at(self) -> float | None:
        """Return the time when SQS got the message, in Unix seconds."""

    @property
    def first_received_at(self) -> float | None:
        """Return the time when SQS first handed out the message, in Unix seconds."""

    @property
    def group_id(self) -> str | None:
        """Return the message group, if the consumer knows it."""

    @property
    def task_name(self) -> str | None:
        """Return the name of a periodic task of cron.yaml."""

    @property
    def scheduled_at(self) -> float | None:
        """Return the time when a periodic task was due, in Unix seconds."""
