"""The dispatcher under Elastic Beanstalk's default server: gunicorn, one worker, 15 threads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.consumers.endpoint.sqsd import SqsdOptions as DaemonOptions
from beanstalk_dispatch.consumers.poller.options import WorkerOptions, WorkerTimes
from beanstalk_dispatch.consumers.poller.post_runner import PostRunner
from beanstalk_dispatch.consumers.poller.worker import Worker
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.sqs.opening import open_queue, open_queue_by_own_name
from beanstalk_dispatch.sqs.queue import Received
from tests.conftest import TABLE, Environment
from tests.proxy import Proxy
from tests.services import PATH, Gunicorn, until
from tests.workers import send

OPTIONS = WorkerOptions(
    threads=5,
    wait=1,
    visibility_timeout=30,
    heartbeat=False,
    times=WorkerTimes(stop_check_interval=0.01, batch_interval=0.03),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    started = Gunicorn(
        tmp_path_factory.mktemp("gunicorn"),
        BEANSTALK_WORKER="True",
        BEANSTALK_DISPATCH_TABLE=TABLE + " append=tests.jobs.append",
        BEANSTALK_DISPATCH_TASK_TIMEOUT="0.5s",
        BEANSTALK_DISPATCH_PERIODIC_TASKS="record",
    )
    until(started.is_up)
    yield started
    started.stop()


def body(function: str, *args: object, **members: object) -> str:
    message = Message(function=function, args=args, **members)  # type: ignore[arg-type]
    return message.encode(queue="q")


def line(server: Gunicorn, message_id: str) -> str:
    """The one log line about a message."""
    until(lambda: f"id={message_id}" in server.log())
    (found,) = [each for each in server.log().splitlines() if f"task id={message_id} " in each]
    return found


def test_the_start_line_is_logged(server: Gunicorn) -> None:
    until(lambda: "start worker=True reason='BEANSTALK_WORKER from environment'" in server.log())


@pytest.mark.parametrize(
    ("function", "args", "status", "outcome"),
    [
        ("record", [1], 200, "done"),
        ("coroutine", ["x"], 200, "done"),
        ("fail", [], 500, "failed"),
        ("loop", [30], 500, "timed-out"),
        ("unlisted", [], 400, "unknown-function"),
    ],
)
def test_outcome_status_and_log_line(
    server: Gunicorn, function: str, args: list[object], status: int, outcome: str
) -> None:
    task_id = f"{function}-1"
    started = time.monotonic()
    assert server.post(body(function, *args, id=task_id))[0] == status
    assert time.monotonic() - started < 10
    assert f"function={function} outcome={outcome} receive_count=1 ms=" in line(server, task_id)


MALFORMED = {
    "empty": b"",
    "not-utf-8": b"\xff\xfe\xfd",
    "not-json": b"hello",
    "deep": b"[" * 200_000,
    "huge-integer": b'{"function":"f","args":[' + b"9" * 100_000 + b'],"kwargs":{}}',
    "huge-float": b'{"function":"f","args":[1e999],"kwargs":{}}',
    "nan": b'{"function":"f","args":[NaN],"kwargs":{}}',
    "one-mebibyte": b"x" * 1_048_576,
    "list": b"[1, 2]",
    "wrong-types": b'{"function":5,"args":{},"kwargs":[]}',
    "newer": b'{"v":2,"function":"record","args":[],"kwargs":{}}',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bodies_are_a_400_with_one_line(server: Gunicorn, name: str) -> None:
    status, content = server.post(MALFORMED[name], **{"X-Aws-Sqsd-Msgid": f"bad-{name}"})
    assert status == 400
    assert content.startswith(b'{"error": 400, "message": ')
    assert len(content) < 400
    assert "outcome=malformed" in line(server, f"bad-{name}")
    assert server.log().count(f"bad-{name}") == 1


def test_a_periodic_task(server: Gunicorn) -> None:
    headers = {"X-Aws-Sqsd-Taskname": "record", "X-Aws-Sqsd-Msgid": "periodic-1"}
    assert server.post(b"", **headers)[0] == 200
    assert server.post(b"", **(headers | {"X-Aws-Sqsd-Taskname": "fail"}))[0] == 403


def test_a_stranger_behind_the_proxy_is_refused(server: Gunicorn) -> None:
    assert server.post(body("record"), **{"X-Real-IP": "203.0.113.9"})[0] == 403


def test_sixty_tasks_at_once_each_keep_their_limit(server: Gunicorn) -> None:
    """Fast ones, failing ones and ones that outlive their limit, side by side on 15 threads."""
    kinds = [("record", 200), ("fail", 500), ("loop", 500)] * 20
    statuses: list[tuple[int, int]] = []

    def one(function: str, expected: int) -> None:
        statuses.append((server.post(body(function))[0], expected))

    threads = [threading.Thread(target=one, args=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(statuses) == 60
    assert all(status == expected for status, expected in statuses)


def test_a_blocked_call_is_reported_as_stuck_and_times_out(server: Gunicorn) -> None:
    started = time.monotonic()
    status, _ = server.post(body("block", 7, id="blocked-1"))
    assert status == 500
    assert time.monotonic() - started >= 6.5  # the C call could not be interrupted
    log = server.log()
    assert "stuck task label=block id=blocked-1" in log
    assert "stuck task ended label=block id=blocked-1" in log
    assert "outcome=timed-out" in line(server, "blocked-1")


def test_no_traceback_page(server: Gunicorn) -> None:
    for content in (b"", b"\xff", body("fail").encode()):
        _, answer = server.post(content)
        assert b"Traceback" not in answer
        assert b"<" not in answer


def test_only_200_deletes(server: Gunicorn, sqs_env: Environment, tmp_path: Path) -> None:
    """The daemon's stand-in between a real queue and the real server."""
    sqs_env(DISPATCH_TABLE=None)
    schedule_function("jobs", "append", str(tmp_path / "out"), 1)
    schedule_function("jobs", "fail")
    open_queue("jobs").send("not json", {})
    url = f"http://127.0.0.1:{server.port}{PATH}"
    post = PostRunner(url, DaemonOptions(error_visibility_timeout=0))
    worker = Worker(["jobs"], post, OPTIONS)
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: worker.counters.done == 1 and worker.counters.failed >= 4)
    worker.stop()
    thread.join(20)
    assert (tmp_path / "out").read_text() == "1\n"
    left = open_queue("jobs").receive(count=10, wait=1, visibility=30)
    assert len(left) == 2
    assert all(int(each.attributes["ApproximateReceiveCount"]) >= 2 for each in left)


def test_after_its_receives_a_message_is_dead_lettered(
    server: Gunicorn, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_TABLE=None)
    task_id = schedule_function("jobs", "fail")
    url = f"http://127.0.0.1:{server.port}{PATH}"
    post = PostRunner(url, DaemonOptions(error_visibility_timeout=0))
    worker = Worker(["jobs"], post, OPTIONS)
    thread = threading.Thread(target=worker.run)
    thread.start()
    dead_letters = open_queue_by_own_name(open_queue("jobs").name + "-dead-letter")
    found: list[Received] = []
    try:
        deadline = time.monotonic() + 60
        while not found and time.monotonic() < deadline:
            found = dead_letters.receive(count=1, wait=1, visibility=30)
    finally:
        worker.stop()
        thread.join(20)
    assert Message.decode(found[0].body, queue="q").id == task_id
    assert worker.counters.failed == 10


def test_elsewhere_it_is_a_404(tmp_path: Path) -> None:
    web = Gunicorn(tmp_path, BEANSTALK_DISPATCH_TABLE=TABLE)
    try:
        until(web.is_up)
        assert web.post(body("record"))[0] == 404
        assert "start worker=False reason='BEANSTALK_WORKER is not set'" in web.log()
    finally:
        web.stop()


def test_a_slow_module_stops_no_other_task_of_a_server_with_one_thread(tmp_path: Path) -> None:
    """gunicorn kills such a worker when a request takes longer than its timeout."""
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(60)\n")
    server = Gunicorn(
        tmp_path,
        BEANSTALK_WORKER="True",
        BEANSTALK_DISPATCH_TABLE=f"slow=slow_module.task {TABLE}",
        BEANSTALK_DISPATCH_TASKS="slow_module tests.django_tasks",
        GUNICORN_CMD_ARGS="--worker-class=sync --timeout=4",
        PYTHONPATH=str(tmp_path),
    )
    try:
        until(server.is_up)
        for function in ("record", "tests.django_tasks.add", "record", "record"):
            started = time.monotonic()
            assert server.post(body(function, 1, *([2] if "add" in function else [])))[0] == 200
            assert time.monotonic() - started < 4
            time.sleep(1.5)  # together longer than gunicorn's timeout
        assert "WORKER TIMEOUT" not in server.log()
    finally:
        server.stop()


def test_a_wrong_configuration_is_told_and_not_a_crash(tmp_path: Path) -> None:
    wrong = Gunicorn(tmp_path, BEANSTALK_WORKER="Ture")
    try:
        until(wrong.is_up)
        assert wrong.post(body("record"))[0] == 500
        assert "BEANSTALK_WORKER: 'Ture' is not a boolean; write True or False" in wrong.log()
    finally:
        wrong.stop()


def test_two_hundred_scalers_of_a_web_process_cost_one_request_for_each_queue(
    sqs_env: Environment, proxy: Proxy, tmp_path: Path, queue_name: str
) -> None:
    token = "a-token-of-the-tests"
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other", WORKER=False,
            DISPATCH_BACKLOG_TOKEN=token)  # fmt: skip
    send("1", "2")
    assert open_queue("other").name
    web = Gunicorn(tmp_path, BEANSTALK_DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    try:
        until(web.is_up)

        def ask(method: str = "GET", **headers: str) -> tuple[int, bytes]:
            return web.ask(method, "/beanstalk_dispatch/backlog", **headers)

        shown = {"Authorization": f"Bearer {token}"}
        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(lambda _: ask(**shown), range(200)))
        assert {status for status, _ in answers} == {200}
        assert json.loads(answers[0][1])["queues"]["jobs"]["visible"] == 2
        assert proxy.counts["GetQueueAttributes"] == 2
        assert ask("HEAD", **shown) == (200, b"")
        assert ask("POST", **shown)[0] == 405
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}):
            assert ask(**headers)[0] == 401
        assert ask(**shown, Host="shop.example.com")[0] == 400
        assert token not in web.log()
    finally:
        web.stop()
