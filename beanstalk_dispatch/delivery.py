"""Delivery: one receive of one message, as a consumer reports it. Knows neither HTTP nor AWS."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .message import Message
from .outcomes import Outcome


@dataclass(slots=True, kw_only=True)  # not frozen: see Message
class Delivery:
    """One receive of one message. Times are Unix seconds."""

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
    body: bytes | str = field(default=b"", repr=False)  # a traceback shows locals by their repr
    """What was received."""
    waited: float | None = None
    """Seconds between the proxy's receipt of the request and its start here, if the proxy says."""
    proxy_timeout: float = 60.0
    """Seconds after which the proxy stops waiting for the answer; nginx's default is 60.

    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_read_timeout
    """
    deadline: float | None = None
    """When the task must have ended, by ``clock.monotonic``, because the consumer itself ends then.
    None if the consumer waits for the task's time limit."""
    message: Message | None = None
    """What the body says, once it is decoded."""
    outcome: Outcome | None = None
    """What became of the task, from the end of ``run`` on. RETRY means that it will run again."""
    exception: BaseException | None = field(default=None, repr=False)
    """What the task or the delivery has failed with."""
    return_value: object = field(default=None, repr=False)
    """What the task's ``run`` has returned. Known before the task's hooks."""
    is_final: bool = False
    """No retry follows a failure: the retries are spent, the message can never run, the failure is
    acknowledged, or there is no queue. Known after the task's hooks."""
    is_cancelled: bool = False
    """The task was cancelled, as far as this process has looked: see ``SafeTask.cancelled``."""
    next_look_at: float = field(default=-math.inf, repr=False)
    """When that may be looked up again, by ``clock.monotonic``."""
    is_dead_lettered: bool = False
    """The dead-letter queue has the message. Known after the task's hooks."""

    @property
    def earlier_runs(self) -> int:
        """How often the task has started before, as far as it is known here."""
        return max(self.receive_count - 1 - self.unrun_receives, 0)
