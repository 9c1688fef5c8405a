from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.consumers.endpoint import sqsd
from beanstalk_dispatch.consumers.poller.in_flight import Ack, Nack
from beanstalk_dispatch.consumers.poller.post_runner import PostRunner
from tests.services import free_port
from tests.workers import PERIODIC, received


class Endpoint(http.server.ThreadingHTTPServer):
    """Answers ``status`` after ``delay`` seconds, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.requests.append((self.path, dict(self.headers), content))
                time.sleep(endpoint.delay)
                self.send_response(endpoint.status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/dispatcher"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


OPTIONS = sqsd.SqsdOptions(error_visibility_timeout=7)
TENTH: Any = 0.1  # of a second; the daemon's options are whole seconds
IMPATIENT = replace(OPTIONS, inactivity_timeout=TENTH, connect_timeout=TENTH)


def test_a_post_is_the_daemons(endpoint: Endpoint) -> None:
    assert PostRunner(endpoint.url, OPTIONS)(received("the body", count=2)) == Ack()
    path, headers, content = endpoint.requests[0]
    assert (path, content) == ("/dispatcher", b"the body")
    assert headers["Host"] == "localhost"
    assert headers["User-Agent"].startswith("aws-sqsd/")
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Aws-Sqsd-Msgid"] == "from-sqs"
    assert headers["X-Aws-Sqsd-Queue"] == "q"
    assert headers["X-Aws-Sqsd-Receive-Count"] == "2"
    assert headers["X-Aws-Sqsd-First-Received-At"] == "2023-08-15T13:57:53Z"


def test_message_attributes_are_sent_as_the_daemon_sends_them(endpoint: Endpoint) -> None:
    PostRunner(f"{endpoint.url}?a=1", OPTIONS)(received("{}", 1, tenant="t1", bad="two\nlines"))
    path, headers, _ = endpoint.requests[0]
    assert path == "/dispatcher?a=1"
    assert headers["X-Aws-Sqsd-Attr-tenant"] == "t1"
    assert "X-Aws-Sqsd-Attr-bad" not in headers


def test_a_periodic_task_has_an_empty_body_and_its_own_path(endpoint: Endpoint) -> None:
    PostRunner(endpoint.url, OPTIONS)(received("elasticbeanstalk scheduled job", 1, **PERIODIC))
    path, headers, content = endpoint.requests[0]
    assert (path, content) == ("/cron", b"")
    assert headers["X-Aws-Sqsd-Taskname"] == "record"
    assert headers["X-Aws-Sqsd-Path"] == "/cron"
    assert headers["X-Aws-Sqsd-Scheduled-At"] == "2023-08-15T13:55:00Z"


@pytest.mark.parametrize("status", [201, 202, 204, 302, 400, 404, 500, 503])
def test_only_200_deletes(endpoint: Endpoint, status: int) -> None:
    endpoint.status = status
    assert PostRunner(endpoint.url, OPTIONS)(received()) == Nack(7)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (404, "'HttpPath is wrong, or BEANSTALK_WORKER is not True'"),
        (418, "'see the log of the project'"),
    ],
)
def test_another_status_is_logged_with_its_meaning(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, status: int, meaning: str
) -> None:
    endpoint.status = status
    PostRunner(endpoint.url, OPTIONS)(received())
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"post id=from-sqs receive_count=1 status={status} meaning={meaning}"
    )


def test_no_answer_in_time_leaves_the_message(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.delay = 1
    assert PostRunner(endpoint.url, IMPATIENT)(received()) == Nack()
    assert "post failed id=from-sqs error=no answer within 0.1 s" in caplog.text


@pytest.mark.parametrize(
    "attributes",
    [
        {"beanstalk.sqsd.path": "/two lines\n"},
        {"beanstalk.sqsd.path": "/\u00e4"},
        {"beanstalk.sqsd.task_name": "\u2713"},
    ],
)
def test_attributes_that_cannot_be_posted_are_an_error(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, attributes: dict[str, str]
) -> None:
    answer = PostRunner(endpoint.url, OPTIONS)(received("", 1, **PERIODIC | attributes))
    assert answer == Nack(7)
    assert "post failed id=from-sqs error=" in caplog.text


def test_a_refused_connection_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    post = PostRunner(f"http://127.0.0.1:{free_port()}/", OPTIONS)
    assert post(received()) == Nack(7)
    assert "post failed id=from-sqs error=ConnectionRefusedError: " in caplog.text


def test_a_connection_that_is_not_accepted_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        queued = [socket.socket() for _ in range(4)]
        for each in queued:  # fill the backlog: the next connection gets no answer
            each.setblocking(False)
            each.connect_ex(address)
        answer = PostRunner(f"http://127.0.0.1:{address[1]}/", IMPATIENT)(received())
        for each in queued:
            each.close()
    assert answer == Nack(7)
    assert "error=ConnectionError: no connection within connect_timeout" in caplog.text


@pytest.mark.parametrize("url", ["https://localhost/", "localhost:80", "http:///path", ""])
def test_only_an_http_url_can_be_posted_to(url: str) -> None:
    with pytest.raises(ValueError, match="not an http:// URL"):
        PostRunner(url, OPTIONS)


def test_a_url_without_port_and_path_has_their_defaults() -> None:
    post = PostRunner("http://localhost", OPTIONS)
    assert (post._port, post._path) == (80, "/")
