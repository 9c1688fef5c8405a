"""What a Worker does with a message: run it in this process, or POST it as aws-sqsd does."""

from __future__ import annotations

import http.client
import logging
from typing import Final
from urllib.parse import urlsplit

from django.core.signals import request_finished, request_started

from beanstalk_dispatch.delivery import Delivery
from beanstalk_dispatch.endpoint.sqsd import (
    HEADER,
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
from beanstalk_dispatch.sqs.queue import Received

from .in_flight import Verdict, expect_end

logger = logging.getLogger("beanstalk_dispatch.worker")

_DELETE: Final = Verdict(delete=True)


def delivery_of(received: Received) -> Delivery:
    """The delivery the daemon would report for a received message."""
    attributes, extra = received.attributes, received.message_attributes
    first = attributes.get("ApproximateFirstReceiveTimestamp")
    sent = attributes.get("SentTimestamp")
    return Delivery(
        queue=received.queue.name,
        message_id=received.message_id,
        receive_count=int(attributes.get("ApproximateReceiveCount", "1")),
        first_received_at=int(first) / 1000 if first else None,
        sent_at=int(sent) / 1000 if sent else None,
        task_name=printable(extra.get(TASK_NAME_ATTRIBUTE)),
        scheduled_at=parse_time(extra.get(SCHEDULED_AT_ATTRIBUTE)),
        group_id=attributes.get("MessageGroupId"),
    )


class _Poller(DelayedCopies):
    """The poller, as execution sees it while it runs one message."""

    can_hide = True

    def __init__(self, received: Received) -> None:
        self._received = received

    def task_starts(self, time_limit: float) -> None:
        expect_end(self._received, time_limit)


def run_here(received: Received) -> Verdict:
    """Run a message in this thread, with what Django does around a request around it."""
    delivery = delivery_of(received)
    request_started.send_robust(sender=run_here)
    try:
        body = "" if delivery.task_name else received.body
        result = executor.run(body, delivery, _Poller(received))
    finally:
        request_finished.send_robust(sender=run_here)
    if result.acknowledged:
        return _DELETE
    # Without a policy it can never run, and is left for the dead-letter queue.
    return Verdict(delete=False, delay=result.retry_after)


class Post:
    """POSTs messages to a URL and reads the answer as aws-sqsd does.

    Exactly 200 deletes; any other answer hides the message for ``error_visibility_timeout``.
    Without an answer within ``inactivity_timeout`` the message is left, and comes back when its
    visibility runs out.
    """

    def __init__(self, url: str, options: SqsdOptions) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// URL")
        self._host, self._port = parts.hostname, parts.port or 80
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._options = options

    def __call__(self, received: Received) -> Verdict:
        delivery = delivery_of(received)
        path, body = self._path, received.body.encode()
        if delivery.task_name:
            path, body = received.message_attributes.get(PATH_ATTRIBUTE, path), b""
        try:
            status = self._post(path, body, headers_of(delivery) | _attributes(received))
        except TimeoutError:
            logger.error("post id=%s timed out; left until visible again", received.message_id)
            return Verdict(delete=False)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            # ValueError: attributes of a message that make no path or no header
            logger.error("post id=%s failed: %s: %s", received.message_id, type(exc).__name__, exc)
            return Verdict(delete=False, delay=self._options.error_visibility_timeout)
        logger.info(
            "post id=%s receive_count=%d status=%d",
            received.message_id, delivery.receive_count, status,
        )  # fmt: skip
        if status == 200:
            return _DELETE
        return Verdict(delete=False, delay=self._options.error_visibility_timeout)

    def _post(self, path: str, body: bytes, told: dict[str, str]) -> int:
        options = self._options
        connection = http.client.HTTPConnection(
            self._host, self._port, timeout=options.connect_timeout
        )
        try:
            try:
                connection.connect()
            except TimeoutError as exc:
                raise ConnectionError("no connection within connect_timeout") from exc
            connection.sock.settimeout(options.inactivity_timeout)
            headers = {
                "Host": "localhost",
                "User-Agent": "aws-sqsd/3.0.4",
                "Content-Type": options.mime_type,
                **told,
            }
            connection.request("POST", path, body=body, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


def _attributes(received: Received) -> dict[str, str]:
    """The daemon's headers of message attributes. What makes no header is left out."""
    headers = {
        f"{HEADER}Attr-{name}": value
        for name, value in received.message_attributes.items()
        if not name.startswith("beanstalk.sqsd.")
    }
    if path := received.message_attributes.get(PATH_ATTRIBUTE):
        headers[f"{HEADER}Path"] = path
    return {n: v for n, v in headers.items() if v and v.isascii() and v.isprintable()}
