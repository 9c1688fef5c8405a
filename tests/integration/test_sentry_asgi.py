"""Sentry under an ASGI server, where one thread serves many requests, and others run the tasks."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.test_sentry import environment_of, signed
from tests.kent import Kent
from tests.sentry_site import SECRET
from tests.services import ROOT, Uvicorn, until


@pytest.fixture(scope="module")
def kent() -> Iterator[Kent]:
    server = Kent()
    yield server
    server.stop()


def test_under_asgi_each_task_has_its_own_events(
    kent: Kent, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Sixty tasks that fail, ten at a time, half of them on event loops, beside one that hangs."""
    variables = environment_of(kent.dsn) | {"BEANSTALK_WORKER": "True"}
    server = Uvicorn(tmp_path_factory.mktemp("uvicorn"), **variables)
    until(server.is_up)

    def post(name: str, number: int, task_id: str) -> int:
        body = signed(name, number, SECRET, id=task_id) if number else signed(name, 7, id=task_id)
        return server.post(body, **{"X-Aws-Sqsd-Msgid": task_id})[0]

    with ThreadPoolExecutor(11) as pool:
        stuck = pool.submit(post, "block", 0, "stuck")
        until(lambda: "start worker=True" in server.log())
        names = ["mixed", "coroutine"] * 30
        numbers = range(1, 61)
        ids = [f"mixed-{number}" for number in numbers]
        assert set(pool.map(post, names, numbers, ids)) == {500}
        assert stuck.result() == 500
    until(lambda: len(kent.tagged("mixed-")) >= 60 and len(kent.events("stuck")) >= 2)
    time.sleep(0.3)
    server.stop()

    assert len(kent.tagged("mixed-")) == 60
    for name, number, task_id in zip(names, numbers, ids, strict=True):
        event = kent.event(task_id)
        assert event["transaction"] == name
        assert event["user"] == {"id": str(number)}
        assert [tag for tag in event["tags"] if tag.startswith("own")] == [f"own-{number}"]
        crumbs = [crumb["message"] for crumb in event["breadcrumbs"]["values"]]
        assert crumbs == [f"crumb {number}"] * 3
    first, second = kent.events("stuck")
    assert first["fingerprint"] == ["beanstalk_dispatch", "stuck", "block"]
    assert first["transaction"] == second["transaction"] == "block"
    frames = first["exception"]["values"][-1]["stacktrace"]["frames"]
    assert "block" in {frame["function"] for frame in frames}
    assert second["tags"]["outcome"] == "timed-out"
    transactions = [each["transaction"] for each in kent.of("transaction")]
    assert set(transactions) == {"mixed", "coroutine", "block"}
    assert len(transactions) == 61
    assert SECRET not in json.dumps(kent.items())


def test_uvicorn_sends_what_it_has_when_it_is_stopped(tmp_path: Path) -> None:
    """With the asgi.py of the page. Without it the event is lost: uvicorn runs no atexit."""
    page = (ROOT / "docs" / "sentry.md").read_text()
    (tmp_path / "shop_asgi.py").write_text(
        re.findall(r"```python\n(# shop/asgi.*?)```", page, re.DOTALL)[0]
    )

    class OwnUvicorn(Uvicorn):
        command: tuple[str, ...] = (
            *Uvicorn.command[:-1], f"--app-dir={tmp_path}", "shop_asgi:application"
        )  # fmt: skip

    kent = Kent(delay=1)
    server = OwnUvicorn(tmp_path, **environment_of(kent.dsn), BEANSTALK_WORKER="True")
    until(server.is_up)
    assert server.post(signed("boom", SECRET, id="at-the-end"))[0] == 500
    server.stop()
    assert len(kent.events("at-the-end")) == 1
    assert "lifespan" not in json.dumps(kent.of("event"))  # which Django does not know
    kent.stop()
