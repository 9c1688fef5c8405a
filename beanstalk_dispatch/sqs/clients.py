"""The boto3 clients of SQS. boto3 is imported here only, when the first client is made."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from beanstalk_dispatch import clock
from beanstalk_dispatch.conf import Config, default_region
from beanstalk_dispatch.conf.variables import SEND_TIMEOUT
from beanstalk_dispatch.queue_address import QueueAddress

from .circuit import Circuit
from .errors import boto_errors, client_error

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

DEFAULT_REGION: Final = "us-east-1"
"""Where no region is configured at all, as in beanstalk-dispatch 0.1."""


class Timeouts(NamedTuple):
    """How long a client waits for an answer, and how often it tries."""

    connect: float
    """Seconds to open a connection."""
    read: float
    """Seconds to wait for the next bytes of an answer."""
    attempts: int
    """Requests in all, the first one included."""
    total: float | None = None
    """Seconds for all attempts. None begins that could end later."""


def send_timeouts(config: Config) -> Timeouts:
    """For sending, and for what is asked about a queue: within BEANSTALK_DISPATCH_SEND_TIMEOUT.

    An attempt that SQS refuses at once leaves enough time for another one.
    """
    total = config.send_timeout.total_seconds()
    connect = min(_MAX_CONNECT_SECONDS, total / 5)
    return Timeouts(connect=connect, read=total / 2, attempts=3, total=total)


class SendTimeout(RuntimeError):
    """No further attempt is made, because it could end after BEANSTALK_DISPATCH_SEND_TIMEOUT."""


_MAX_CONNECT_SECONDS: Final = 2.0
_STARTED: Final = "beanstalk_dispatch_started"

_COMMON_WAIT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 5


def long_poll_timeouts(wait: int) -> Timeouts:
    """For receiving: SQS may take ``wait`` seconds to answer, and its answer a few seconds more.

    Short waits share their timeouts, and so their client.
    """
    read = max(wait, _COMMON_WAIT_SECONDS) + _ANSWER_SECONDS
    return Timeouts(connect=5, read=read, attempts=2)


SHORT_TIMEOUTS: Final = Timeouts(connect=3, read=4, attempts=2)
"""For deletes and visibility changes: a received message expires while they wait."""


class Clients:
    """The SQS clients of one configuration: one per region, endpoint and timeouts.

    One boto3 session makes all of them, because each session loads a description of SQS of its own.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.is_retired = False
        """True once the credentials turned out to be missing or expired; make new Clients then."""
        self._lock = threading.RLock()
        self._session: Any = None
        self._user_agent: str | None = None
        self._clients: dict[tuple[str, str | None, Timeouts], SQSClient] = {}
        self._circuits: dict[int, Circuit] = {}

    def get(self, address: QueueAddress, timeouts: Timeouts) -> SQSClient:
        """The client for the queue at ``address``. Raises SendError if it cannot be made."""
        # botocore validates AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL and similar variables.
        errors: tuple[type[Exception], ...] = (*boto_errors(), ValueError)
        endpoint_url = self.config.sqs_endpoint_url or address.endpoint_url
        try:
            with self._lock:
                key = (self._region_for(address), endpoint_url, timeouts)
                if key not in self._clients:
                    self._clients[key] = self._make_client(*key)
                return self._clients[key]
        except errors as exc:
            raise client_error(address, exc) from exc

    def circuit(self, client: SQSClient) -> Circuit:
        """The circuit of a client that sends: the queues of its region and endpoint share it."""
        with self._lock:
            if id(client) not in self._circuits:
                longest = self.config.send_timeout.total_seconds()
                self._circuits[id(client)] = Circuit(longest_request=longest)
            return self._circuits[id(client)]

    def retire(self) -> None:
        """Have the next ``open_queue`` make new clients, which read the credentials again."""
        self.is_retired = True

    def _region_for(self, address: QueueAddress) -> str:
        configured = address.region or self.config.sqs_region or default_region()
        region: str = configured or self._boto_session().region_name or DEFAULT_REGION
        return region

    def _boto_session(self) -> Any:
        if self._session is None:
            self._session = _new_session()
        return self._session

    def _make_client(self, region: str, endpoint_url: str | None, timeouts: Timeouts) -> SQSClient:
        from botocore.config import Config as ClientConfig  # noqa: PLC0415 - as boto3

        client_config = ClientConfig(
            connect_timeout=timeouts.connect,
            read_timeout=timeouts.read,
            retries={"mode": "standard", "total_max_attempts": timeouts.attempts},
            max_pool_connections=50,
            parameter_validation=False,  # this package checks what can be wrong in a request
        )

        def make(client_config: ClientConfig) -> SQSClient:
            client: SQSClient = self._boto_session().client(
                "sqs",
                region_name=region,
                endpoint_url=endpoint_url,
                aws_access_key_id=self.config.sqs_key,
                aws_secret_access_key=self.config.sqs_secret,
                aws_session_token=self.config.sqs_token,
                config=client_config,
            )
            return client

        if _builds_user_agent_slowly():
            # A User-Agent that is given as an option is sent as it is, so a first client is made
            # for that string only.
            if self._user_agent is None:
                self._user_agent = make(client_config).meta.config.user_agent  # type: ignore[attr-defined]
            client_config = client_config.merge(ClientConfig(user_agent=self._user_agent))
        client = make(client_config)
        if timeouts.total is not None:
            refuse: Any = functools.partial(
                _refuse_late_attempt, timeouts.total, timeouts.total - sum(timeouts[:2])
            )
            client.meta.events.register("request-created.sqs", refuse)
        return client


def _builds_user_agent_slowly() -> bool:
    """Whether botocore builds its whole User-Agent for each request: a fifth of a call's cost.

    Since version 1.44.6 it keeps most of that string.
    """
    import botocore  # noqa: PLC0415 - as boto3

    return tuple(map(int, botocore.__version__.split(".")[:3])) < (1, 44, 6)


_loaders: Final[list[Any]] = []
"""botocore's loader, once there is one. It reads 50 ms of JSON and keeps it, also for a fork."""


def _new_session() -> Any:
    """A session of boto3 that has read AWS's descriptions of SQS only if no other one has."""
    import boto3  # noqa: PLC0415 - takes a fifth of a second
    import botocore.session  # noqa: PLC0415 - as boto3

    core = botocore.session.get_session()
    if _loaders:
        core.register_component("data_loader", _loaders[0])
    session = boto3.session.Session(botocore_session=core)
    loader = core.get_component("data_loader")
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # each session of boto3 adds one
    _loaders[:] = [loader]
    return session


def _refuse_late_attempt(total: float, latest: float, *, request: Any, **_: object) -> None:
    """Raise SendTimeout for an attempt that begins ``latest`` seconds after the first, or later.

    botocore emits this event for each attempt, with the context of the whole call.
    """
    now = clock.monotonic()
    if now - request.context.setdefault(_STARTED, now) > latest:
        raise SendTimeout(f"no answer came in time; {SEND_TIMEOUT.variable} is {total:g} s")
