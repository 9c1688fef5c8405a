"""Requests about these credentials and a queue, for a diagnosis. Nothing is changed.

Each method raises an InspectionError if its request fails, which says whether a permission is
missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.logging.log_lines import joined

from .errors import (
    UnexpectedAnswer,
    boto_errors,
    client_errors,
    error_code,
    first_line,
    is_access_denied,
    is_missing_queue,
    remedy_of,
)
from .session import ConfiguredSession
from .timeouts import DIAGNOSIS_TIMEOUTS

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_EMPTY_BATCH_CODES: Final = frozenset({
    "EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest",
})  # fmt: skip


class InspectionError(Exception):
    """The failure of a request of the diagnosis.

    Its message has AWS's code and the first line of AWS's message.
    """

    def __init__(self, exc: Exception) -> None:
        answer: Mapping[str, Any] = (getattr(exc, "response", None) or {}).get("Error", {})
        super().__init__(f"{error_code(exc)}: {first_line(answer.get('Message') or exc)}")
        self.is_denied = is_access_denied(exc)
        """True if these credentials lack the permission."""
        self.is_missing_queue = is_missing_queue(exc)
        """True if the queue does not exist, or these credentials may not know of it."""
        self.remedy = remedy_of(exc)
        """The remedy; empty if only AWS's own message can say it."""


class Inspector:
    """A client of AWS for a diagnosis, with the configured credentials, region and endpoint."""

    def __init__(self, config: Config) -> None:
        self._session = ConfiguredSession(config)
        self.clock_skew: float | None = None
        """The seconds by which this machine's clock is ahead of AWS's, by the last answer."""
        self.account: str | None = None
        """The account of these credentials, once AWS has said it."""

    def identity(self) -> Mapping[str, str]:
        """Return ``Account`` and ``Arn`` of these credentials. It needs no permission.

        https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
        """
        answer = self._send_request(
            lambda: self._make_client("sts").get_caller_identity(), "Account", "Arn"
        )
        self.account = answer["Account"]
        return {"Account": answer["Account"], "Arn": answer["Arn"]}

    def region(self, address: QueueAddress | None = None) -> str | None:
        """Return the region in which a queue is searched. None: boto3 knows none."""
        try:
            return self._session.region(address)
        except client_errors() as exc:
            raise InspectionError(exc) from None

    def queue_url(self, address: QueueAddress) -> str:
        """Return the URL of a queue. A URL or ARN in the configuration needs no request."""
        if address.url:
            return address.url
        client = self._sqs_client(address)
        answer = self._send_request(
            lambda: client.get_queue_url(QueueName=address.name), "QueueUrl"
        )
        return str(answer["QueueUrl"])

    def attributes(self, address: QueueAddress, url: str) -> Mapping[str, str]:
        """Return every attribute of a queue.

        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
        """
        client = self._sqs_client(address)
        answer = self._send_request(
            lambda: client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]), "Attributes"
        )
        attributes: Mapping[str, str] = answer["Attributes"]
        return attributes

    def try_to_send_nothing(self, address: QueueAddress, url: str) -> None:
        """Send an empty batch, which SQS refuses.

        Raise an InspectionError if the permission to send is missing.
        """
        client = self._sqs_client(address)
        try:
            self._send_request(lambda: client.send_message_batch(QueueUrl=url, Entries=[]))
        except InspectionError as exc:
            if str(exc).partition(":")[0] not in _EMPTY_BATCH_CODES:
                raise

    def _sqs_client(self, address: QueueAddress) -> SQSClient:
        client: SQSClient = self._make_client("sqs", address)
        return client

    def _make_client(self, service: str, address: QueueAddress | None = None) -> Any:
        try:
            return self._session.make_client(
                service,
                region=self.region(address),
                endpoint_url=self._session.endpoint_url(address) if address else None,
                timeouts=DIAGNOSIS_TIMEOUTS,
            )
        except client_errors() as exc:
            raise InspectionError(exc) from None

    def _send_request(self, request: Callable[[], Any], *members: str) -> Any:
        """Return the answer, which has these members."""
        try:
            answer = request()
            if missing := [each for each in members if each not in answer]:
                raise UnexpectedAnswer(f"the answer has no {joined(missing)}")
        except KeyError as exc:  # of botocore, for a page in place of an answer of STS
            raise InspectionError(UnexpectedAnswer(f"the answer has no {exc}")) from None
        except boto_errors() as exc:
            self._read_clock(getattr(exc, "response", None) or {})
            raise InspectionError(exc) from None
        self._read_clock(answer)
        return answer

    def _read_clock(self, answer: Mapping[str, Any]) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        with suppress(KeyError, ValueError):
            self.clock_skew = time.time() - parsedate_to_datetime(headers["date"]).timestamp()
