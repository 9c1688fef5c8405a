from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.checks import INFO, CheckMessage

from beanstalk_dispatch.problems import machine_doctor
from beanstalk_dispatch.problems.machine_doctor import Machine, seconds_of_nginx
from tests.conftest import TABLE, Environment
from tests.services import PATH, free_port

DAEMON = f"""\
---
http_connections: 15
http_path: "{PATH}"
inactivity_timeout: 290
visibility_timeout: 300
mime_type: application/json
"""
SENT = f"2026-11-25T03:00:00Z message: sent to http://localhost:80{PATH}\n"
FAILED = "2026-11-25T03:01:00Z http-err: 9621f014-4670-4152-999a-ac575b5f2e2a (1) {} - 60.004\n"


class Front:
    """A server that answers every GET alike."""

    status = 405
    content = b'{"error": 405, "message": "only POST is accepted"}'


@pytest.fixture
def front() -> Iterator[tuple[type[Front], int]]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Host"] == "localhost"
            self.send_response(Front.status)
            self.end_headers()
            self.wfile.write(Front.content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Front, server.server_address[1]
        server.shutdown()


@pytest.fixture
def machine(tmp_path: Path, env: Environment, front: tuple[type[Front], int]) -> Machine:
    """A worker instance that is set up well."""
    env(WORKER=True, DISPATCH_TABLE=TABLE)
    (tmp_path / "nginx" / "conf.d").mkdir(parents=True)
    (tmp_path / "default.yaml").write_text(DAEMON)
    (tmp_path / "default.log").write_text(SENT * 3)
    (tmp_path / "nginx" / "nginx.conf").write_text("proxy_read_timeout 280s;\n")
    return Machine(
        daemon_options=tmp_path / "default.yaml",
        daemon_log=tmp_path / "default.log",
        nginx=tmp_path / "nginx",
        port=front[1],
        proc=tmp_path / "proc",
        cgroup=tmp_path / "cgroup",
    )


def test_the_memory_of_child_processes(machine: Machine, env: Environment) -> None:
    machine.proc.mkdir()
    (machine.proc / "meminfo").write_text("MemAvailable:  204800 kB\n")
    assert bad(machine) == []
    env(DISPATCH_ISOLATION="process")
    (finding,) = bad(machine)
    assert finding.id == "beanstalk_dispatch.W307"
    assert finding.msg.startswith("the daemon posts 15 tasks at a time: a child process uses ")
    assert str(finding.hint).startswith("HttpConnections: 13, ")
    env(DISPATCH_ISOLATION="proces")  # which the examination without AWS reports
    assert "memory" not in {each.obj for each in machine_doctor.examine(machine)}


def test_a_daemon_that_reads_the_dead_letter_queue_is_an_error(
    machine: Machine, env: Environment
) -> None:
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail"
    machine.daemon_options.write_text(f"{DAEMON}queue_url: {url}\n")
    assert bad(machine) == []
    env(DISPATCH_DEAD_LETTER_QUEUE="shop-mail")
    (finding,) = bad(machine)
    assert finding.id == "beanstalk_dispatch.E123"
    assert "would go back to its own queue" in finding.msg


def examine(machine: Machine) -> list[CheckMessage]:
    return list(machine_doctor.examine(machine))


def bad(machine: Machine) -> list[CheckMessage]:
    return [finding for finding in examine(machine) if finding.level != INFO]


def test_a_machine_that_is_set_up_well_has_nothing_but_ok(machine: Machine) -> None:
    assert [(each.obj, each.msg) for each in examine(machine)] == [
        ("daemon", f"it posts to {PATH}"),
        ("daemon", "http_connections=15: keep it at or below gunicorn's threads times processes"),
        ("timeouts", "each is longer than the one before it; a task may take 120 s"),
        ("endpoint", f"GET {PATH} reaches the dispatcher through nginx"),
        ("daemon's log", "3 messages were posted, and none failed"),
    ]
    assert bad(machine) == []


def test_a_wrong_path_of_the_daemon_is_said(machine: Machine) -> None:
    machine.daemon_options.write_text("http_path: /\n")
    daemon = next(f for f in bad(machine) if f.obj == "daemon")
    assert daemon.msg == "it posts to /, which is not the dispatcher"
    assert str(daemon.hint).startswith(f"HttpPath: {PATH}")


def test_nginxs_default_is_too_short(machine: Machine) -> None:
    (machine.nginx / "nginx.conf").write_text("events {}\n")
    (finding,) = bad(machine)
    assert finding.msg.startswith("nginx's proxy_read_timeout, 60 s, is not longer than")


def test_the_dispatchers_own_limit_counts_before_others(machine: Machine) -> None:
    own = machine.nginx / "conf.d" / "elasticbeanstalk"
    own.mkdir()
    (own / "beanstalk_dispatch.conf").write_text("location = /x {\n  proxy_read_timeout 5s;\n}\n")
    (machine.nginx / "broken.conf").symlink_to(machine.nginx / "nowhere")
    (finding,) = bad(machine)
    assert "proxy_read_timeout, 5 s, is not longer" in finding.msg
    (own / "beanstalk_dispatch.conf").unlink()
    assert bad(machine) == []


@pytest.mark.parametrize(
    ("time", "seconds"), [("280", 280), ("280s", 280), ("5m", 300), ("1m 30s", 90), ("500ms", 0.5)]
)
def test_nginxs_times_are_read(time: str, seconds: float) -> None:
    assert seconds_of_nginx(time) == seconds


def test_a_machine_that_is_not_a_worker_instance_is_said_in_one_line(machine: Machine) -> None:
    machine.daemon_options.unlink()
    (finding,) = examine(machine)
    assert finding.msg == f"cannot read {machine.daemon_options}: No such file or directory"
    assert finding.hint == "is this a worker instance?"


def test_options_that_cannot_be_read_hide_nothing_else(machine: Machine) -> None:
    machine.daemon_options.unlink()
    machine.daemon_options.mkdir()
    machine.daemon_log.unlink()
    daemon, log = bad(machine)
    assert daemon.msg == f"cannot read {machine.daemon_options}: Is a directory"
    assert log.msg == f"cannot read {machine.daemon_log}: No such file or directory"


def test_a_file_that_needs_root_is_said(machine: Machine) -> None:
    finding = machine_doctor._unreadable_file(
        "x", machine.daemon_log, PermissionError(13, "denied")
    )
    assert finding.hint == "run it with sudo"


def test_a_wrong_configuration_has_no_time_limit(machine: Machine, env: Environment) -> None:
    env(WORKER="Ture")
    assert "timeouts" not in {finding.obj for finding in examine(machine)}


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (404, b'{"error": 404, "message": "not found"}', "BEANSTALK_WORKER is not True"),
        (405, b"<html>", "another program answers"),
        (405, b"[]", "another program answers"),
        (502, b"<html>", "gunicorn does not run"),
    ],
)
def test_an_endpoint_that_does_not_answer_as_a_worker_is_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, status: int, content: bytes, words: str
) -> None:
    monkeypatch.setattr(Front, "status", status)
    monkeypatch.setattr(Front, "content", content)
    (finding,) = bad(machine)
    assert finding.obj == "endpoint"
    assert f"answered {status} through nginx: " in finding.msg
    assert words in finding.msg


def test_an_nginx_that_does_not_run_is_said(machine: Machine) -> None:
    port = free_port()
    away = Machine(
        daemon_options=machine.daemon_options, daemon_log=machine.daemon_log, nginx=machine.nginx,
        port=port,
    )  # fmt: skip
    (finding,) = bad(away)
    assert finding.msg.startswith(f"no answer from 127.0.0.1:{port}: ConnectionRefusedError")


def test_the_daemons_log_is_explained(machine: Machine) -> None:
    machine.daemon_log.write_text(
        SENT * 600 + FAILED.format(504) * 2 + FAILED.format(404) + FAILED.format(999)
    )
    first, *others = bad(machine)
    assert first.msg == (
        "2 of 496 posts were answered 504: the task took longer than nginx's proxy_read_timeout"
    )
    assert len(others) == 2
    assert any("see the log of the project" in each.msg for each in others)
