"""POST a received message to a web server, as aws-sqsd does: the runner of beanstalk_daemon."""

from __future__ import annotations

import http.client
import logging
from typing import Final
from urllib.parse import urlsplit

from beanstalk_dispatch.consumers.endpoint.sqsd import (
    HEADER,
    MEANINGS,
    PATH_ATTRIBUTE,
    SqsdOptions,
    headers_of,
)
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.sqs.queue import Received

from .in_flight import Ack, Nack
from .runners import TaskStarts, delivery_of

logger = logging.getLogger("beanstalk_dispatch.worker")

_ACK: Final = Ack()
_USER_AGENT: Final = "aws-sqsd/3.0.4"


class PostRunner:
    """A runner that POSTs messages to a URL, and reads the answer as aws-sqsd does.

    Exactly 200 deletes the message; any other answer hides it for ``error_visibility_timeout``.
    Without an answer within ``inactivity_timeout`` it is delivered again when its visibility
    timeout ends.
    """

    def __init__(self, url: str, options: SqsdOptions) -> None:
        """Raise ValueError unless ``url`` is an http:// URL."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(
                f"{url!r} is not an http:// URL; write http://localhost:8000/beanstalk_dispatch/dispatcher"
            )
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
        """POST and return the status. Raise TimeoutError only if the answer does not come."""
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
    """Return the daemon's headers of message attributes.

    A header whose value is not printable ASCII is left out.
    """
    headers = {
        f"{HEADER}Attr-{name}": value
        for name, value in received.message_attributes.items()
        if not name.startswith("beanstalk.sqsd.")
    }
    if path := received.message_attributes.get(PATH_ATTRIBUTE):
        headers[f"{HEADER}Path"] = path
    return {n: v for n, v in headers.items() if v and v.isascii() and v.isprintable()}
