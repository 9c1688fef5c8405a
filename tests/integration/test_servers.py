"""The dispatcher under other servers than the one of Elastic Beanstalk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beanstalk_dispatch.messages.message import Message
from tests.conftest import TABLE
from tests.services import Gunicorn, Uvicorn, Waitress, accepts, until

pytestmark = pytest.mark.slow

VARIABLES = {
    "BEANSTALK_WORKER": "True",
    "BEANSTALK_DISPATCH_TABLE": TABLE,
    "BEANSTALK_DISPATCH_TASK_TIMEOUT": "0.5s",
}
NO_TIME_LIMIT = "start time_limits=no reason=gevent: tasks are not interrupted"
SHORT_TIMEOUT = "start gunicorn_timeout=2 time_limit=60: gunicorn kills a worker without threads"


def body(function: str, *args: object) -> str:
    return Message(id=f"{function}-1", function=function, args=args).encode(queue="q")


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("server", "variables"),
    [
        pytest.param(Uvicorn, {}, id="uvicorn"),
        pytest.param(Uvicorn, {"WEB_CONCURRENCY": "2"}, id="uvicorn with two processes"),
        pytest.param(Waitress, {}, id="waitress"),
        pytest.param(Gunicorn, {"GUNICORN_CMD_ARGS": ""}, id="gunicorn without threads"),
    ],
)
def test_a_time_limit_interrupts_a_task(
    tmp_path: Path, server: type[Gunicorn], variables: dict[str, str]
) -> None:
    started = server(tmp_path, **VARIABLES, **variables)
    try:
        until(lambda: accepts(started.port))
        assert started.post(body("record", 1))[0] == 200
        assert started.post(body("loop", 30))[0] == 500
        until(lambda: "task id=loop-1 function=loop outcome=timed-out" in started.log())
        assert "time_limits=no" not in started.log()
        assert "gunicorn_timeout=" not in started.log()
    finally:
        started.stop()


@pytest.mark.parametrize("options", ["", " --preload"])
def test_gevent_has_no_time_limits_and_says_so(tmp_path: Path, options: str) -> None:
    configuration = tmp_path / "gunicorn.conf.py"
    configuration.write_text("from beanstalk_dispatch.draining import post_worker_init\n")
    arguments = f"--worker-class=gevent --config={configuration}{options}"
    gevent = Gunicorn(tmp_path, **VARIABLES, GUNICORN_CMD_ARGS=arguments)
    try:
        until(gevent.is_up)
        assert gevent.post(body("loop", 1))[0] == 200
        assert gevent.log().count(NO_TIME_LIMIT) == 1
        until(lambda: "check failed id=beanstalk_dispatch.W018" in gevent.log())
    finally:
        gevent.stop()


def test_one_greenlet_that_is_stuck_does_not_replace_the_process(tmp_path: Path) -> None:
    """Such a process has a thousand of them."""
    gevent = Gunicorn(tmp_path, **VARIABLES, GUNICORN_CMD_ARGS="--worker-class=gevent")
    try:
        until(gevent.is_up)
        with ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(gevent.post, body("nap", 8))
            until(lambda: "stuck task label=nap id=nap-1" in gevent.log())
            assert gevent.post(body("record", 1))[0] == 200
            assert stuck.result()[0] == 500
        assert "recycle pid=" not in gevent.log()
    finally:
        gevent.stop()


def test_gunicorn_kills_a_worker_without_threads_and_this_is_said_before(tmp_path: Path) -> None:
    variables = VARIABLES | {
        "BEANSTALK_DISPATCH_TASK_TIMEOUT": "1m",
        "BEANSTALK_DISPATCH_CRASH_LEDGER": str(tmp_path / "ledger"),
    }
    gunicorn = Gunicorn(tmp_path, **variables, GUNICORN_CMD_ARGS="--timeout=2")
    try:
        until(lambda: SHORT_TIMEOUT in gunicorn.log())
        assert gunicorn.post(body("loop", 30))[0] == 500
        until(lambda: "cut id=loop-1 function=loop receive_count=1" in gunicorn.log())
        assert "WORKER TIMEOUT" in gunicorn.log()
    finally:
        gunicorn.stop()
