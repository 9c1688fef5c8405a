from __future__ import annotations

import asyncio
import io
import itertools
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.handlers.base import BaseHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import reverse

from beanstalk_dispatch import views
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.sqs.backlog import BACKLOG
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import TABLE, Environment
from tests.jobs import calls
from tests.proxy import Proxy, error
from tests.workers import send

URL = "/beanstalk_dispatch/dispatcher"


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@pytest.fixture
def worker(env: Environment) -> Environment:
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    return env


def post(body: bytes | str = b"", path: str = URL, **headers: str) -> Any:
    client = Client(enforce_csrf_checks=True, raise_request_exception=True)
    return client.post(path, body, content_type="application/json", headers=headers)


def body(function: str = "record", *args: Any) -> str:
    return Message(function=function, args=args).encode(queue="q")


@pytest.mark.parametrize("path", [URL, "/beanstalk_dispatch/", f"{URL}/"])
def test_a_task_runs_at_each_address(worker: Environment, path: str) -> None:
    response = post(body("record", 1), path)
    assert (response.status_code, response.json()) == (200, {})
    assert response["Content-Type"] == "application/json"
    assert calls == [((1,), {})]


def test_the_url_has_its_name() -> None:
    assert reverse("beanstalk_dispatcher") == "/beanstalk_dispatch/"


def test_elsewhere_the_endpoint_is_not_there(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(DISPATCH_TABLE=TABLE)
    assert post(body()).status_code == 404
    assert calls == []
    assert caplog.text == ""
    assert post(body(), **{"X-Aws-Sqsd-Msgid": "1"}).status_code == 404
    assert "BEANSTALK_WORKER is not True" in caplog.text


def test_a_visitor_with_the_daemons_header_is_not_logged_on_another_machine(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(DISPATCH_TABLE=TABLE)
    headers = {"X-Aws-Sqsd-Msgid": "1", "X-Forwarded-For": "203.0.113.5"}
    assert post(body(), **headers).status_code == 404
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("variables", "headers", "reason"),
    [
        ({"WORKER": "False"}, {"X-Aws-Sqsd-Msgid": "1"}, "reason=not-a-worker"),
        ({"WORKER": "True"}, {"X-Real-IP": "203.0.113.5"}, "reason=untrusted-peer"),
        ({"WORKER": "Ture"}, {}, "reason=configuration"),
        ({"WORKER": "True", "DISPATCH_SIGNING_KEYS": "a-key-of-the-tests"}, {},
         "outcome=bad-signature"),
    ],
)  # fmt: skip
def test_refusals_of_one_kind_are_one_line_a_minute(
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    headers: dict[str, str],
    reason: str,
) -> None:
    env(DISPATCH_TABLE=TABLE, **variables)
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("beanstalk_dispatch.logging.throttle.time", clock)
    for _ in range(5):
        post(body(), **headers)
    (first,) = caplog.messages
    assert reason in first
    assert "repeated" not in first
    now += 60
    caplog.clear()
    for _ in range(2):
        post(body(), **headers)
    (second,) = caplog.messages
    assert reason in second
    assert " repeated=4" in second
    now += 60
    caplog.clear()
    post(body(), **headers)
    assert "repeated=1" in caplog.text


@pytest.mark.parametrize("method", ["get", "put", "delete", "head", "options"])
def test_only_post_is_accepted(worker: Environment, method: str) -> None:
    response = getattr(Client(), method)(URL)
    assert (response.status_code, response["Allow"]) == (405, "POST")


def test_a_stranger_is_refused_without_a_reason(
    worker: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    response = post(body(), **{"X-Real-IP": "203.0.113.5"})
    assert response.status_code == 403
    assert response.json() == {"error": 403, "message": "forbidden"}
    assert "'203.0.113.5' is not in BEANSTALK_DISPATCH_TRUSTED_PEERS" in caplog.text
    assert calls == []


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ("", 400, "empty body"),
        (b"\xff", 400, "not UTF-8 at byte 0"),
        (body("unlisted"), 400, "Requested function not found: unlisted"),
        (body("fail"), 500, "the task failed"),
        ("{}", 400, "Please provide a function argument"),
    ],
)
def test_refusals_are_json(
    worker: Environment, content: bytes | str, status: int, message: str
) -> None:
    response = post(content)
    assert response.status_code == status
    assert response.json() == {"error": status, "message": message}


def test_failures_can_be_acknowledged(worker: Environment) -> None:
    worker(DISPATCH_ON_FAILURE="acknowledge")
    assert (post(body("fail")).status_code, post(b"x").status_code) == (200, 400)


def test_a_bad_signature_gets_no_reason(worker: Environment) -> None:
    worker(DISPATCH_SIGNING_KEYS="a-key-of-the-tests")
    response = post(body())
    assert response.json() == {"error": 403, "message": "forbidden"}


def test_a_signature_is_for_one_queue(worker: Environment) -> None:
    worker(DISPATCH_SIGNING_KEYS="a-key-of-the-tests")
    signed = Message(function="record").encode(queue="right", keys=["a-key-of-the-tests"])
    assert post(signed, **{"X-Aws-Sqsd-Queue": "wrong"}).status_code == 403
    assert post(signed, **{"X-Aws-Sqsd-Queue": "right"}).status_code == 200


def test_a_periodic_task(worker: Environment) -> None:
    headers = {"X-Aws-Sqsd-Taskname": "record", "X-Aws-Sqsd-Msgid": "1"}
    response = post(b"", **headers)
    assert (response.status_code, response.json()["message"]) == (403, "forbidden")
    worker(DISPATCH_PERIODIC_TASKS="record")
    assert post(b"", **headers).status_code == 200


def test_a_wrong_configuration_is_a_500_that_tells_the_log(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(WORKER="Ture")
    response = post(body())
    assert response.status_code == 500
    assert "Ture" not in response.content.decode()
    assert "'Ture' is not a boolean" in caplog.text


@pytest.mark.parametrize(
    ("worker_flag", "headers", "held"),
    [
        ("True", {"X-Aws-Sqsd-Msgid": "1"}, [5]),
        ("True", {"X-Aws-Sqsd-Msgid": "1", "X-Aws-Sqsd-Receive-Count": "4"}, [14]),
        ("Ture", {"X-Aws-Sqsd-Msgid": "1"}, [5]),
        ("False", {"X-Aws-Sqsd-Msgid": "1"}, []),
        ("True", {}, []),
        ("True", {"X-Aws-Sqsd-Msgid": "1", "X-Real-IP": "203.0.113.5"}, []),
    ],
)
def test_while_the_configuration_is_wrong_only_the_daemons_posts_are_held(
    env: Environment, monkeypatch: pytest.MonkeyPatch, worker_flag: str,
    headers: dict[str, str], held: list[float],
) -> None:  # fmt: skip
    env(WORKER=worker_flag, DISPATCH_TABLE="no-pair")
    pauses: list[float] = []
    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", pauses.append)
    assert post(body(), **headers).status_code == 500
    assert pauses == held


@pytest.mark.parametrize("receive_count", [1, 2])
def test_what_cannot_run_here_is_a_503_that_is_held_from_the_second_receive_on(
    worker: Environment, monkeypatch: pytest.MonkeyPatch, receive_count: int
) -> None:
    worker(DISPATCH_TABLE="broken=tests.nowhere.f")
    pauses: list[float] = []
    monkeypatch.setattr("beanstalk_dispatch.consumers.endpoint.holding.time.sleep", pauses.append)
    text = Message(function="broken").encode(queue="q")
    headers = {"X-Aws-Sqsd-Receive-Count": str(receive_count), "X-Aws-Sqsd-Queue": "q"}
    assert post(text, **headers).status_code == 503
    assert pauses == [3] * (receive_count - 1)


def test_a_body_above_djangos_limit_is_a_400(
    worker: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        response = post(body())
    assert response.status_code == 400
    assert "exceeded" in caplog.text


def test_a_body_that_never_arrives_is_a_400(worker: Environment) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError

    request = RequestFactory().post(URL)
    request._stream = Broken()
    assert views.dispatcher(request).status_code == 400


def test_a_length_that_is_no_number_is_a_400(worker: Environment) -> None:
    request = RequestFactory().post(URL, b"{}", content_type="application/json")
    request.META["CONTENT_LENGTH"] = ":"
    assert views.dispatcher(request).status_code == 400


@pytest.mark.parametrize("content", [b"", body("fail").encode(), body("unlisted").encode()])
def test_django_adds_no_line_of_its_own(
    worker: Environment, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    post(content)
    assert {record.name.partition(".")[0] for record in caplog.records} == {"beanstalk_dispatch"}


def test_no_line_tells_arguments(worker: Environment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    post(body("record", "hush"))
    post(body("unlisted", "hush"))
    assert "hush" not in caplog.text


def deny(get_response: Any) -> Any:
    """A middleware that needs every view to be exempt from what Django can exempt it from."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        return response

    middleware.process_view = must_be_exempt  # type: ignore[attr-defined]
    return middleware


def must_be_exempt(request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
    assert view.csrf_exempt
    assert not view.login_required


@override_settings(MIDDLEWARE=["tests.unit.test_views.deny"])
def test_the_view_is_exempt_from_csrf_and_login(worker: Environment) -> None:
    assert post(body()).status_code == 200


def test_the_log_line_has_the_receive_count(
    worker: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    post(body(), **{"X-Aws-Sqsd-Receive-Count": "4"})
    assert "outcome=done receive_count=4" in caplog.text


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_task_has_its_own_transactions(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    env(WORKER=True, DISPATCH_TABLE="in_transaction=tests.jobs.in_transaction")
    for alias in connections:
        monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)
    assert post(body("in_transaction")).status_code == 200
    assert calls == [(False, False)]


@pytest.mark.slow
def test_under_asgi_a_coroutine_that_blocks_keeps_the_server_from_nothing(
    env: Environment,
) -> None:
    env(WORKER=True, DISPATCH_TABLE="blocks=tests.jobs.blocks", DISPATCH_TASK_TIMEOUT="0.5s")
    message = body("blocks", 20)
    beats: list[float] = []

    async def serve() -> int:
        client = AsyncClient()
        request = asyncio.create_task(client.post(URL, message, content_type="application/json"))
        while not request.done():
            beats.append(time.monotonic())
            await asyncio.sleep(0.05)
        return (await request).status_code

    assert asyncio.run(serve()) == 500
    assert calls == []
    assert max(later - earlier for earlier, later in itertools.pairwise(beats)) < 0.5
    assert 0.5 < beats[-1] - beats[0] < 10


def test_atomic_requests_leave_the_dispatcher_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for connection in connections.all():
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    handler = BaseHandler()
    assert handler.make_view_atomic(views.dispatcher) is views.dispatcher
    assert handler.make_view_atomic(deny) is not deny


# --- the backlog -----------------------------------------------------------------------------

BACKLOG_URL = "/beanstalk_dispatch/backlog"
TOKEN = "a-token-of-the-tests"


def get(token: str | None = None, method: str = "get", path: str = BACKLOG_URL, **meta: str) -> Any:
    headers = {} if token is None else {"HTTP_AUTHORIZATION": token}
    client = Client(enforce_csrf_checks=True, raise_request_exception=True)
    return getattr(client, method)(path, **headers, **meta)


@pytest.fixture
def web(sqs_env: Environment) -> Environment:
    sqs_env(DISPATCH_BACKLOG_TOKEN=TOKEN)
    return sqs_env


@pytest.mark.parametrize("path", [BACKLOG_URL, f"{BACKLOG_URL}/"])
def test_a_web_process_shows_the_backlog_to_who_has_the_token(web: Environment, path: str) -> None:
    send("1", "2")
    response = get(f"Bearer {TOKEN}", path=path)
    content = response.json()
    assert content.pop("age_seconds") < 10
    figures = {
        "visible": 2, "in_flight": 0, "delayed": 0, "threads": 10, "wanted_processes": 1,
    }  # fmt: skip
    assert content == {"queues": {"jobs": figures}, "total": figures}
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    assert reverse("beanstalk_backlog") == BACKLOG_URL


@pytest.mark.parametrize(
    "shown",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}",
     TOKEN, f"Bearer {TOKEN} {TOKEN}", "Bearer \xe4\xf6\xfc", f"Token {TOKEN}"],
)  # fmt: skip
def test_without_the_token_nobody_reads_it(
    web: Environment, shown: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    web(WORKER=True)  # nor do the trusted peers of a worker, once there is a token
    response = get(shown)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert [record.getMessage() for record in caplog.records] == [
        "refused status=401 reason=backlog-token"
    ]
    assert get(shown).status_code == 401
    assert len(caplog.records) == 1
    assert TOKEN not in caplog.text


def test_the_scheme_is_read_in_any_case(web: Environment) -> None:
    assert get(f"bearer  {TOKEN} ").status_code == 200


def test_without_a_token_a_web_process_has_no_backlog(
    sqs_env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    assert get().status_code == 404
    assert get(f"Bearer {TOKEN}").status_code == 404
    sqs_env(DISPATCH_TRUSTED_PEERS="0.0.0.0/0 ::/0")
    assert get().status_code == 404
    assert caplog.text == ""


def test_without_a_token_the_trusted_peers_of_a_worker_read_it(
    worker_env: Environment,
) -> None:
    assert get().status_code == 200
    for header in ("HTTP_X_REAL_IP", "HTTP_X_FORWARDED_FOR"):
        assert get(**{header: "203.0.113.5"}).status_code == 404
        assert get(**{header: "127.0.0.1"}).status_code == 200
    assert get(HTTP_X_FORWARDED_FOR="127.0.0.1, 203.0.113.5").status_code == 404
    assert get(HTTP_X_FORWARDED_FOR="203.0.113.5, 127.0.0.1").status_code == 404
    assert get(REMOTE_ADDR="203.0.113.5").status_code == 404


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
def test_the_backlog_is_only_read(web: Environment, method: str) -> None:
    response = get(f"Bearer {TOKEN}", method)
    assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")
    assert response.json()["message"] == "only GET is accepted"
    assert get(None, method).status_code == 401


def test_a_probe_may_ask_for_the_head_of_the_backlog(web: Environment) -> None:
    response = get(f"Bearer {TOKEN}", "head")
    assert (response.status_code, response.content) == (200, b"")


def test_without_queues_the_backlog_is_not_known(web: Environment) -> None:
    web(DISPATCH_QUEUES=None)
    response = get(f"Bearer {TOKEN}")
    assert response.status_code == 503
    assert "BEANSTALK_DISPATCH_QUEUES names no queue" in response.json()["message"]


def test_an_error_of_sqs_is_a_503_with_one_line(
    web: Environment, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_queue("jobs").name
    proxy.spoil = lambda operation, request: (
        error(403, "AccessDenied") if operation == "GetQueueAttributes" else None
    )
    web(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    caplog.clear()
    for _ in range(3):
        response = get(f"Bearer {TOKEN}")
        assert (response.status_code, response.json()) == (503, {
            "error": 503,
            "message": "no queue can be read: the permission sqs:GetQueueAttributes is missing",
        })  # fmt: skip
    assert proxy.counts["GetQueueAttributes"] == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("backlog unknown queues=jobs error=")
    assert "AccessDenied" in line


def test_django_itself_may_refuse_who_asks_for_the_backlog(web: Environment) -> None:
    shown = f"Bearer {TOKEN}"
    with override_settings(ALLOWED_HOSTS=["shop.example.com"]):
        assert get(shown, HTTP_HOST="10.0.0.7").status_code == 400
        assert get(shown, HTTP_HOST="shop.example.com").status_code == 200
    with override_settings(SECURE_SSL_REDIRECT=True):
        assert get(shown).status_code == 301
        assert get(shown, **{"wsgi.url_scheme": "https"}).status_code == 200


def test_a_health_check_needs_its_host_and_a_page(env: Environment) -> None:
    with override_settings(ALLOWED_HOSTS=["localhost"]):
        assert Client().get("/", HTTP_HOST="10.0.0.7").status_code == 400
    with override_settings(ALLOWED_HOSTS=["localhost", "10.0.0.7"]):
        assert Client().get("/", HTTP_HOST="10.0.0.7").status_code == 404


def test_a_first_answer_that_takes_long_is_a_503(
    web: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BACKLOG, "read", lambda config: None)
    response = get(f"Bearer {TOKEN}")
    assert (response.status_code, response.json()["message"]) == (503, "SQS has not answered yet")


def test_a_wrong_configuration_is_a_500_of_the_backlog(env: Environment) -> None:
    env(WORKER="Ture")
    assert get().status_code == 500


def test_the_backlog_needs_no_database(web: Environment) -> None:
    assert all(name in vars(views.backlog)["_non_atomic_requests"] for name in ("default", "new"))
