from __future__ import annotations

import contextvars
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.core.cache import caches
from django.core.signals import request_finished, request_started

from beanstalk_dispatch.endpoint import sqsd
from beanstalk_dispatch.message import Message
from beanstalk_dispatch.queue_address import QueueAddress
from beanstalk_dispatch.sqs.queue import Queue, Received
from beanstalk_dispatch.worker.in_flight import Ack, Nack
from beanstalk_dispatch.worker.runners import PostRunner, delivery_of, run_here
from tests.conftest import TABLE, Environment
from tests.jobs import calls
from tests.services import free_port
from tests.workers import NO_CLIENTS

QUEUE = Queue(QueueAddress(name="q"), "http://127.0.0.1:9/1/q", NO_CLIENTS)
PERIODIC = {
    "beanstalk.sqsd.task_name": "record",
    "beanstalk.sqsd.path": "/cron",
    "beanstalk.sqsd.scheduled_time": "2023-08-15T13:55:00Z",
}


def received(body: str = "", count: int = 1, **message_attributes: str) -> Received:
    return Received(
        queue=QUEUE,
        message_id="from-sqs",
        receipt="receipt",
        body=body,
        expires=time.monotonic() + 30,
        attributes={
            "ApproximateReceiveCount": str(count),
            "ApproximateFirstReceiveTimestamp": "1692107873000",
            "SentTimestamp": "1692107870000",
        },
        message_attributes=message_attributes,
    )


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


def body(function: str = "record", *args: Any) -> str:
    return Message(function=function, args=args).encode(queue="q")


@pytest.fixture
def worker(env: Environment) -> Environment:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    return env


# --- in this process ---

in_process = pytest.mark.django_db  # connections are closed as after a request


@in_process
def test_a_task_runs_here(worker: Environment) -> None:
    assert run_here(received(body("record", 1))) == Ack()
    assert calls == [((1,), {})]


@in_process
def test_the_delivery_is_what_the_daemon_would_report(worker: Environment) -> None:
    run_here(received(body("recorder"), count=3))
    delivery = calls[0][3]
    assert (delivery.queue, delivery.message_id, delivery.receive_count) == ("q", "from-sqs", 3)
    assert (delivery.first_received_at, delivery.sent_at) == (1692107873.0, 1692107870.0)


def test_a_delivery_knows_how_many_of_its_receives_started_no_task() -> None:
    message = received(count=3)
    message.unrun_receives = 2
    assert (delivery_of(message).unrun_receives, delivery_of(message).earlier_runs) == (2, 0)


def test_a_delivery_knows_where_its_queue_is(monkeypatch: pytest.MonkeyPatch) -> None:
    message = received()
    assert delivery_of(message).location is None
    monkeypatch.setattr(message.queue, "location", "eu-west-1/123456789012")
    assert delivery_of(message).location == "eu-west-1/123456789012"


def test_a_message_without_attributes_is_read_too() -> None:
    bare = received()
    bare.attributes = {}
    delivery = delivery_of(bare)
    assert (delivery.receive_count, delivery.sent_at) == (1, None)


@in_process
@pytest.mark.parametrize(("count", "bound"), [(1, 10), (3, 40), (1000, 3600)])
def test_a_failure_backs_off(worker: Environment, count: int, bound: float) -> None:
    answers = [run_here(received(body("fail"), count=count)) for _ in range(40)]
    delays = [each.delay for each in answers if isinstance(each, Nack) and each.delay is not None]
    assert len(delays) == 40
    assert 0 <= min(delays) < bound / 2 < max(delays) <= bound


@in_process
def test_a_message_that_can_never_run_is_left_to_the_redrive_policy(worker: Environment) -> None:
    assert run_here(received("nonsense")) == Nack()
    assert run_here(received(body("unlisted"))) == Nack()


@in_process
def test_a_periodic_task_runs_here_if_listed(worker: Environment) -> None:
    message = received("elasticbeanstalk scheduled job", 1, **PERIODIC)
    assert run_here(message) == Nack()
    worker(DISPATCH_PERIODIC_TASKS="record")
    assert run_here(message) == Ack()
    assert calls == [((), {})]


def test_a_task_name_that_would_break_a_log_line_is_left_out() -> None:
    message = received("{}", 1, **PERIODIC | {"beanstalk.sqsd.task_name": "record\nERROR"})
    assert delivery_of(message).task_name is None


@in_process
def test_a_task_is_surrounded_as_a_request_is(worker: Environment) -> None:
    seen: list[str] = []

    def started(**kwargs: Any) -> None:
        seen.append("started")

    def finished(**kwargs: Any) -> None:
        seen.append("finished")

    request_started.connect(started)
    request_finished.connect(finished)
    try:
        run_here(received(body("fail")))
    finally:
        request_started.disconnect(started)
        request_finished.disconnect(finished)
    assert seen == ["started", "finished"]


@in_process
def test_a_receiver_that_raises_changes_nothing(
    worker: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**kwargs: Any) -> None:
        raise RuntimeError("broken receiver")

    for signal in (request_started, request_finished):
        signal.connect(broken)
    try:
        assert run_here(received(body("record"))) == Ack()
    finally:
        for signal in (request_started, request_finished):
            signal.disconnect(broken)
    assert caplog.text.count("broken receiver") >= 2


@in_process
def test_the_time_limit_of_the_task_is_reported(worker: Environment) -> None:
    limits: list[float] = []
    message = received(Message(function="record", options={"timeout": 1000}).encode(queue="q"))
    run_here(message, limits.append)
    assert limits == [1000]


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")


@in_process
def test_a_tasks_context_does_not_reach_the_next(
    worker: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def soil(*args: Any) -> None:
        seen.append(variable.get())
        variable.set("soiled")

    monkeypatch.setattr("tests.jobs.record", soil)
    for _ in range(2):
        run_here(received(body("record")))
    assert seen == ["clean", "clean"]


@in_process
def test_a_threads_tasks_share_its_caches(
    worker: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr("tests.jobs.record", lambda: seen.append(caches["default"]))

    def run_twice() -> None:
        for _ in range(2):
            run_here(received(body("record")))

    for _ in range(2):  # a test before may have replaced the caches of the main thread
        thread = threading.Thread(target=run_twice)
        thread.start()
        thread.join()
    assert seen[0] is seen[1] is not seen[2]


# --- as aws-sqsd ---


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
