"""The dispatcher, and an empty view with the same middleware, in the process itself."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any

from .tasks import QUEUE

DISTRIBUTIONS = ["django-beanstalk-dispatch", "django"]


_numbers = itertools.count()


def request(application: Any, path: str, body: bytes) -> None:
    """POST a body as the daemon does. Raises RuntimeError if the answer is not 200."""
    answers: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        answers.append(status)

    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost",
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)),
        "HTTP_USER_AGENT": "aws-sqsd/3.0.4",
        "HTTP_X_AWS_SQSD_MSGID": f"00000000-0000-4000-8000-{next(_numbers):012d}",
        "HTTP_X_AWS_SQSD_QUEUE": QUEUE, "HTTP_X_AWS_SQSD_RECEIVE_COUNT": "1",
        "HTTP_X_AWS_SQSD_FIRST_RECEIVED_AT": "2026-01-02T03:04:05Z",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(), "wsgi.multithread": True, "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }  # fmt: skip
    response = application(environ, start_response)
    b"".join(response)
    if hasattr(response, "close"):
        response.close()
    if not answers[0].startswith("200 "):
        raise RuntimeError(f"{path} was answered {answers[0]}")


def operations() -> dict[str, Callable[..., Any]]:
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()
    from beanstalk_dispatch.conf import get_config
    from beanstalk_dispatch.messages.message import Message, now

    bodies: list[bytes] = []

    def prepare(count: int) -> None:
        """Encode the next messages. That is the sender's work, and is not measured."""
        keys = get_config().signing_keys
        for _ in range(count):
            message = Message(function="noop", args=(1, "two"), kwargs={"x": 3}, sent_at=now())
            bodies.append(message.encode(queue=QUEUE, keys=keys).encode())

    def empty(count: int) -> None:
        for _ in range(count):
            request(application, "/empty/dispatcher", bodies.pop())

    def dispatch(count: int) -> None:
        for _ in range(count):
            request(application, "/beanstalk_dispatch/dispatcher", bodies.pop())

    return {"empty": empty, "dispatch": dispatch, "prepare": prepare}
