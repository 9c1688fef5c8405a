"""The session of boto3, with the configured credentials, region and endpoint.

Only this module imports boto3, when the first client is made or a region is needed.
"""

from __future__ import annotations

from typing import Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import QueueAddress

from .timeouts import Timeouts

DEFAULT_REGION: Final = "us-east-1"
"""The region if none is configured at all, as in beanstalk-dispatch 0.1."""


def import_boto3() -> None:
    """Import boto3 and what its first client imports."""
    from botocore import config, endpoint  # noqa: F401, PLC0415 - as boto3

    _new_session()
    _loaders[0].load_service_model("sqs", "service-2")


class ConfiguredSession:
    """The maker of the boto3 clients of one configuration.

    One session of boto3 makes all clients, because each session loads a description of SQS.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._session: Any = None

    def region(self, address: QueueAddress | None = None) -> str | None:
        """Return the region in which a queue is searched. None: boto3 knows none either."""
        own = address.region if address else None
        configured = own or self._config.region
        region: str | None = configured or self._boto_session().region_name
        return region

    def endpoint_url(self, address: QueueAddress) -> str | None:
        """Return the endpoint of a queue, if it is not that of its region."""
        return self._config.sqs_endpoint_url or address.endpoint_url

    def make_client(
        self, service: str, *,
        region: str | None,
        endpoint_url: str | None = None,
        timeouts: Timeouts,
    ) -> Any:  # fmt: skip
        """Return a new client. Raise one of ``errors.client_errors`` if it cannot be made."""
        from botocore.config import Config as ClientConfig  # noqa: PLC0415 - as boto3

        return self._boto_session().client(
            service,
            region_name=region or DEFAULT_REGION,
            endpoint_url=endpoint_url,
            aws_access_key_id=self._config.sqs_key,
            aws_secret_access_key=self._config.sqs_secret,
            aws_session_token=self._config.sqs_token,
            config=ClientConfig(
                connect_timeout=timeouts.connect,
                read_timeout=timeouts.read,
                retries={"mode": "standard", "total_max_attempts": timeouts.attempts},
                max_pool_connections=50,
                parameter_validation=False,  # this package checks what can be wrong in a request
            ),
        )

    def _boto_session(self) -> Any:
        if self._session is None:
            self._session = _new_session()
        return self._session


_loaders: Final[list[Any]] = []
"""The loader of botocore, once there is one.

It reads 50 ms of JSON and keeps it, also for a fork.
"""


def _new_session() -> Any:
    """Return a session of boto3 with the loader of an earlier session, if there is one.

    A loader reads AWS's descriptions of SQS once.
    """
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
