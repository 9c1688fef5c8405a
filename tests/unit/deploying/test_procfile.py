from __future__ import annotations

from pathlib import Path

import pytest

from beanstalk_dispatch.deploying.procfile import (
    PROCFILE,
    processes,
    read_web_command,
    read_web_server,
    web_command,
    web_server,
    with_web_line,
)


@pytest.mark.parametrize(
    ("command", "program", "graceful", "capacity"),
    [
        ("gunicorn -w 2 --threads 8 shop.wsgi", "gunicorn", 30, 16),
        ("gunicorn --workers=2 --graceful-timeout=90 x", "gunicorn", 90, 2),
        ("gunicorn --threads many x", "gunicorn", 30, 1),
        ("gunicorn -k uvicorn_worker.UvicornWorker --threads 4 x", "gunicorn", 30, None),
        ("newrelic-admin run-program gunicorn --threads=4 x", "gunicorn", 30, 4),
        ("python -m uvicorn shop.asgi:application", "uvicorn", None, None),
        ("/opt/bin/uvicorn --timeout-graceful-shutdown 9 x", "uvicorn", 9, None),
        ("waitress-serve shop.wsgi:application", "waitress-serve", 0, None),
    ],
)
def test_the_options_of_a_known_server_are_read(
    command: str, program: str, graceful: float | None, capacity: int | None
) -> None:
    server = web_server(command)
    assert server
    found = (server.program.name, server.graceful_timeout, server.capacity)
    assert found == (program, graceful, capacity)


@pytest.mark.parametrize("command", ["gunicorn 'x", "sh serve.sh", ""])
def test_another_server_is_not_known(command: str) -> None:
    assert web_server(command) is None


def test_the_command_line_wins_over_gunicorns_file() -> None:
    server = web_server("gunicorn --threads 2 x", "threads = 9\nworkers = 3\ntimeout = f()\n")
    assert server
    assert (server.threads, server.workers, server.timeout) == (2, 3, 30)


def test_a_bundle_without_a_procfile_starts_nothing(tmp_path: Path) -> None:
    assert read_web_command(tmp_path) is None
    assert read_web_server(tmp_path) is None
    (tmp_path / PROCFILE).write_text("web: uvicorn x\n")
    assert read_web_command(tmp_path) == "uvicorn x"


def test_only_the_line_of_the_web_server_is_replaced() -> None:
    procfile = "release: r\nweb: old\nworker-2: w\n"
    assert processes(procfile) == ["release", "web", "worker-2"]
    assert web_command(procfile) == "old"
    assert with_web_line(procfile, "web: new\n") == "web: new\nrelease: r\nworker-2: w\n"
    assert with_web_line("worker: w", "web: new\n") == "web: new\nworker: w\n"
