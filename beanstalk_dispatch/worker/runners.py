"""Runners: what a worker does with a message. Runs it here, or POSTs it as aws-sqsd does."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from django.core.signals import request_finished, request_started

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.endpoint.sqsd import (
    HEADER,
    MEANINGS,
    PATH_ATTRIBUTE,
    SCHEDULED_AT_ATTRIBUTE,
    TASK_NAME_ATTRIBUTE,
    SqsdOptions,
    headers_of,
    parse_time,
    printable,
)
from beanstalk_dispatch.execution import executor
from beanstalk_dispatch.execution.consumer import DelayedCopies
from beanstalk_dispatch.log_lines import quoted, quoted_error
from beanstalk_dispatch.outcomes import OUTCOMES
from beanstalk_dispatch.sqs.queue import Received

from .in_flight import Ack, Nack

logger = logging.getLogger("beanstalk_dispatch.worker")

TaskStarts = Callable[[float], None]
"""Called when a task starts, with its time limit in seconds."""
Runner = Callable[[Received, TaskStarts], Ack | Nack]
"""Runs a message and says what SQS is to do with it. May call its second argument."""

_ACK: Final = Ack()
_USER_AGENT: Final = "aws-sqsd/3.0.4"


def delivery_of(received: Received) -> Delivery:
    """The delivery that the daemon would report for a received message."""
    attributes, message_attributes = received.attributes, received.message_attributes
    first = attributes.get("ApproximateFirstReceiveTimestamp")
    sent = attributes.get("SentTimestamp")
    return Delivery(
        queue=received.queue.name,
        location=received.queue.location,
        message_id=received.message_id,
        receive_count=received.receive_count,
        unrun_receives=received.unrun_receives,
        first_received_at=int(first) / 1000 if first else None,
        sent_at=int(sent) / 1000 if sent else None,
        task_name=printable(message_attributes.get(TASK_NAME_ATTRIBUTE)),
        scheduled_at=parse_time(message_attributes.get(SCHEDULED_AT_ATTRIBUTE)),
        group_id=attributes.get("MessageGroupId"),
    )


# --- in this process -------------------------------------------------------------------------


class PollerConsumer(DelayedCopies):
    """The poller as execution sees it while one message runs."""

    can_hide = True

    def __init__(self, on_start: TaskStarts) -> None:
        self._on_start = on_start

    def task_starts(self, time_limit: float) -> None:
        """Have the message's visibility extended for as long as its task may run."""
        self._on_start(time_limit)


def run_here(received: Received, on_start: TaskStarts = lambda time_limit: None) -> Ack | Nack:
    """Run a message in this thread, between Django's signals for the start and end of a request."""
    delivery = delivery_of(received)
    body = "" if delivery.task_name else received.body
    request_started.send_robust(sender=run_here)
    try:
        result = executor.run(body, delivery, PollerConsumer(on_start))
    finally:
        request_finished.send_robust(sender=run_here)
    # Without a delay the message can never run, and is left to the queue's redrive policy.
    if not result.acknowledged:
        return Nack(result.retry_after)
    return Ack(is_failure=OUTCOMES[result.outcome].is_failure)


# --- in a web server -------------------------------------------------------------------------


class PostRunner:
    """POSTs messages to a URL and reads the answer as aws-sqsd does.

    Exactly 200 deletes the message; any other answer hides it for ``error_visibility_timeout``.
    Without an answer within ``inactivity_timeout`` it is delivered again when its visibility
    timeout ends.
    """

    def __init__(self, url: str, options: SqsdOptions) -> None:
        """Raises ValueError unless ``url`` is an http:// URL."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// URL")
        self._host, self._port = parts.hostname, parts.port or 80
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._options = options

    def __call__(
        self, received: Received, on_start: TaskStarts = lambda time_limit: None
    ) -> Ack | Nack:
        """POST a message. The limit of its task is the web server's, so none is reported."""
        delivery = delivery_of(received)
        path, body = self._path, received.body.encode()
        if delivery.task_name:
            path, body = received.message_attributes.get(PATH_ATTRIBUTE, path), b""
        try:
            status = self._post_for_status(
                path, body, headers_of(delivery) | _attribute_headers(received)
            )
        except TimeoutError:
            logger.error(
                "post failed id=%s error=no answer within %g s",
                quoted(received.message_id), self._options.inactivity_timeout,
            )  # fmt: skip
            return Nack()
        except (OSError, http.client.HTTPException, ValueError) as exc:
            # ValueError: attributes of the message are not valid in a path or header.
            logger.error(
                "post failed id=%s error=%s",
                quoted(received.message_id),
                quoted_error(exc, with_type=True),
            )
            return Nack(self._options.error_visibility_timeout)
        if status == 200:
            logger.info(
                "post id=%s receive_count=%d status=200",
                quoted(received.message_id), delivery.receive_count,
            )  # fmt: skip
            return _ACK
        logger.warning(
            "post id=%s receive_count=%d status=%d meaning=%s",
            quoted(received.message_id), delivery.receive_count, status,
            quoted(MEANINGS.get(status, "see the log of the project")),
        )  # fmt: skip
        return Nack(self._options.error_visibility_timeout)

    def _post_for_status(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """POST and return the status. Raises TimeoutError only if the answer does not come."""
        options = self._options
        connection = http.client.HTTPConnection(
            self._host, self._port, timeout=options.connect_timeout
        )
        fixed = {
            "Host": "localhost",
            "User-Agent": _USER_AGENT,
            "Content-Type": options.mime_type,
        }
        try:
            try:
                connection.connect()
            except TimeoutError as exc:
                raise ConnectionError("no connection within connect_timeout") from exc
            connection.sock.settimeout(options.inactivity_timeout)
            connection.request("POST", path, body=body, headers=fixed | headers)
            return connection.getresponse().status
        finally:
            connection.close()


def _attribute_headers(received: Received) -> dict[str, str]:
    """The daemon's headers of message attributes, without those that are not valid in a header."""
    headers = {
        f"{HEADER}Attr-{name}": value
        for name, value in received.message_attributes.items()
        if not name.startswith("beanstalk.sqsd.")
    }
    if path := received.message_attributes.get(PATH_ATTRIBUTE):
        headers[f"{HEADER}Path"] = path
    return {n: v for n, v in headers.items() if v and v.isascii() and v.isprintable()}
