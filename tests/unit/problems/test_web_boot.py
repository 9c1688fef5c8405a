"""Procfiles of every kind, started as ``beanstalk_eb --check`` starts them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.deploying.application import Application
from beanstalk_dispatch.deploying.eb_files import gunicorn_command
from beanstalk_dispatch.deploying.plan import Plan, make_plan
from beanstalk_dispatch.deploying.procfile import PROCFILE
from beanstalk_dispatch.problems import web_boot
from tests.conftest import TABLE, Environment
from tests.services import ROOT, free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def plan(env: Environment, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "")
    env(DISPATCH_TABLE=TABLE)
    application = Application(module="tests.wsgi", directory=str(ROOT), settings="tests.settings")
    return make_plan(get_config(), name="shop", region="eu-west-1", account="123456789012",
                     application=application)  # fmt: skip


def boot(plan: Plan, root: Path, command: str, seconds: float = 30) -> CheckMessage:
    (root / PROCFILE).write_text(f"web: {command}\n")
    (finding,) = web_boot.boot(plan, root, seconds=seconds)
    return finding


def test_the_line_that_is_written_starts_and_leaves_nothing_behind(
    plan: Plan, tmp_path: Path
) -> None:
    finding = boot(plan, tmp_path, gunicorn_command(plan))
    assert (finding.id, finding.msg) == (
        None, "it starts, and GET /beanstalk_dispatch/dispatcher reaches the dispatcher",
    )  # fmt: skip
    assert not [each for each in psutil.Process().children() if "gunicorn" in each.name()]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("gunicorn --bind 127.0.0.1:8000 nothing.wsgi", "No module named 'nothing'"),
        ("gunicorn", "No application module specified"),
        ("nothing-of-this-name", "not found"),
    ],
)
def test_the_reason_is_told_if_it_does_not_start(
    plan: Plan, tmp_path: Path, command: str, told: str
) -> None:
    finding = boot(plan, tmp_path, command)
    assert finding.id == "beanstalk_dispatch.E426"
    assert told in finding.msg


def test_a_server_that_never_answers_is_ended(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_boot, "_END_SECONDS", 0.2)
    finding = boot(plan, tmp_path, "trap '' TERM; echo waiting; sleep 300", seconds=0.3)
    assert finding.msg == "the web server does not answer within 0.3 s: waiting"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("def application(e, s):\n    s('400 Bad Request', [])\n    return []\n", "answered 400"),
        ("def application(e, s):\n    s('405 No', [])\n    return [b'no JSON']\n", "answered 405"),
    ],
)
def test_another_answer_is_told(plan: Plan, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "other.py").write_text(content)
    finding = boot(plan, tmp_path, "gunicorn --bind :8000 other")
    assert finding.id == "beanstalk_dispatch.E427"
    assert told in finding.msg
    assert str(finding.hint).startswith("DJANGO_SETTINGS_MODULE=tests.settings python")


def test_settings_without_a_module_are_left_to_the_environment(plan: Plan, tmp_path: Path) -> None:
    unknown = replace(plan, application=Application())
    assert boot(unknown, tmp_path, "false").msg == "the web server ends: it writes nothing"


def test_without_a_line_nothing_starts(plan: Plan, tmp_path: Path) -> None:
    assert list(web_boot.boot(plan, tmp_path)) == []


@contextmanager
def dispatcher_on(port: int) -> Iterator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(405)
            self.end_headers()
            self.wfile.write(b'{"error": 405}')

    with http.server.HTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield
        finally:
            server.shutdown()


def test_a_port_that_another_program_has_is_not_asked(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_boot, "PORT", free_port())
    with dispatcher_on(web_boot.PORT):
        assert boot(plan, tmp_path, "sleep 300", seconds=0.3).id == "beanstalk_dispatch.E426"


def test_a_server_on_its_default_port_is_asked_there(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_boot, "PORT", free_port())
    monkeypatch.setattr(web_boot, "_is_taken", lambda port: False)
    with dispatcher_on(web_boot.PORT):
        assert boot(plan, tmp_path, "sleep 300").id is None
