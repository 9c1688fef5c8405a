"""The boto3 clients of SQS, each made on first use."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.conf.variables import SEND_TIMEOUT
from beanstalk_dispatch.process import clock

from .circuit import Circuit
from .errors import client_error, client_errors
from .joined_sends import WAITED
from .session import DEFAULT_REGION, ConfiguredSession
from .timeouts import Timeouts

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_STARTED: Final = "beanstalk_dispatch_started"
"""The key of the start of a request's first attempt in the request's context."""


RENEWAL_SECONDS: Final = 5.0
"""The seconds between two times that wrong credentials are read again. New clients take 20 ms."""


class SendTimeout(RuntimeError):
    """The error of an attempt that is not made, because it could end too late.

    BEANSTALK_DISPATCH_SEND_TIMEOUT is the limit.
    """


class Clients:
    """The SQS clients of one configuration: one per region, endpoint and timeouts."""

    def __init__(self, config: Config, *, are_renewed: bool = False) -> None:
        """``are_renewed``: the clients before these were retired."""
        self.config = config
        self.is_retired = False
        """True once the credentials turned out to be wrong; make new Clients then."""
        self._kept_until = clock.monotonic() + RENEWAL_SECONDS if are_renewed else 0.0
        self._lock = threading.RLock()
        self._session = ConfiguredSession(config)
        self._clients: dict[tuple[str, str | None, Timeouts], SQSClient] = {}
        self._circuits: dict[int, Circuit] = {}

    def get(self, address: QueueAddress, timeouts: Timeouts) -> SQSClient:
        """Return the client for the queue at ``address``. Raise SendError if it cannot be made."""
        try:
            with self._lock:
                region = self._session.region(address) or DEFAULT_REGION
                key = (region, self._session.endpoint_url(address), timeouts)
                if key not in self._clients:
                    self._clients[key] = self._make_client(*key)
                return self._clients[key]
        except client_errors() as exc:
            raise client_error(address, exc) from exc

    def circuit(self, client: SQSClient) -> Circuit:
        """Return the circuit of a client that sends.

        The queues of its region and endpoint share it.
        """
        with self._lock:
            if id(client) not in self._circuits:
                longest = self.config.send_timeout.total_seconds()
                self._circuits[id(client)] = Circuit(longest_request=longest)
            return self._circuits[id(client)]

    def retire(self) -> None:
        """Retire these clients, unless they have read the credentials again just now.

        The next ``open_queue`` makes new ones, which read the credentials again.
        """
        if clock.monotonic() >= self._kept_until:
            self.is_retired = True

    def _make_client(self, region: str, endpoint_url: str | None, timeouts: Timeouts) -> SQSClient:
        client: SQSClient = self._session.make_client(
            "sqs", region=region, endpoint_url=endpoint_url, timeouts=timeouts
        )
        if timeouts.total is not None:
            refuse: Any = functools.partial(
                _refuse_late_attempt, timeouts.total, timeouts.total - sum(timeouts[:2])
            )
            client.meta.events.register("request-created.sqs", refuse)
        return client


def _refuse_late_attempt(total: float, latest: float, *, request: Any, **_: object) -> None:
    """Raise SendTimeout if an attempt begins ``latest`` seconds after the first, or later.

    botocore emits this event for each attempt, with the context of the whole call.
    """
    now = clock.monotonic()
    started = request.context.setdefault(_STARTED, now - WAITED.get())
    if now - started > latest:
        raise SendTimeout(
            f"no answer came in time, which was {now - started:.1f} s; another attempt could end "
            f"after {SEND_TIMEOUT.variable}, which is {total:g} s"
        )
