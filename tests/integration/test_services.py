"""The servers that other tests use: each starts, serves and is gone at the end."""

from __future__ import annotations

import http.client
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import psycopg
import psycopg2
import pytest
import redis
from django.db.utils import ConnectionHandler
from pymemcache.client.base import Client as Memcache
from pytest_django import DjangoDbBlocker
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services import (
    Service,
    _postgres_programs,
    accepts,
    database_settings,
    memcached,
    nginx,
    postgres,
    valkey,
)


def test_valkey_keeps_values_and_stops() -> None:
    with valkey() as port, redis.Redis(port=port) as client:
        client.set("name", "value")
        assert client.get("name") == b"value"
    assert not accepts(port)


def test_a_paused_server_keeps_connections_and_does_not_answer() -> None:
    server = valkey()
    with (
        server as port,
        redis.Redis(port=port, socket_timeout=0.2, retry=Retry(NoBackoff(), 0)) as client,
    ):
        assert client.ping()
        with server.paused(), pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
        assert client.ping()


def test_memcached_keeps_values() -> None:
    with memcached() as port:  # pragma: no cover - not on every machine
        client = Memcache(("127.0.0.1", port))
        client.set("name", "value")
        assert client.get("name") == b"value"
        client.close()


def test_postgres_serves_both_drivers_and_django(django_db_blocker: DjangoDbBlocker) -> None:
    with postgres() as url, django_db_blocker.unblock():
        for driver in (psycopg, psycopg2):
            connection = driver.connect(url)
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                assert cursor.fetchone() == (1,)
            connection.close()
        handler = ConnectionHandler({"default": database_settings(url)})
        with handler["default"].cursor() as cursor:
            cursor.execute("SELECT 2")
            assert cursor.fetchone() == (2,)
        handler["default"].close()


def test_a_paused_postgres_answers_no_open_connection() -> None:
    server = postgres()
    with server as url, psycopg.connect(url) as connection:
        with server.paused():
            connection.pgconn.send_query(b"SELECT 3")
            assert select.select([connection], [], [], 0.3) == ([], [], [])
        assert connection.pgconn.get_result()
        assert connection.pgconn.get_result() is None


def test_postgres_is_copied_for_a_user_who_cannot_reach_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As under root with an environment in root's own folder."""

    def run(*args: object, **options: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr("tests.services.subprocess.run", run)
        programs = _postgres_programs(tmp_path, os.geteuid())
    assert programs.is_relative_to(tmp_path)
    for each in ("initdb", "postgres", "pg_isready"):  # each finds its libraries
        subprocess.run([programs / each, "--version"], check=True)


def test_what_a_server_says_when_it_does_not_start_is_shown() -> None:
    server = Service("/bin/sh", "-c", "echo no luck")
    with pytest.raises(AssertionError, match="no luck"):
        server.__enter__()


# --- nginx, as on a worker machine of Elastic Beanstalk ---


@contextmanager
def upstream(seconds: float = 0) -> Iterator[int]:
    """A server that answers, after some seconds, with the headers it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(seconds)
            content = str(self.headers).encode()
            with suppress(OSError):  # nginx has waited long enough
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def post(
    port: int, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/", body, {"Host": "localhost", **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_nginx_tells_the_peer() -> None:
    with upstream() as port, nginx(port) as front:
        status, headers = post(
            front,
            headers={"X-Real-IP": "203.0.113.9", "X-Forwarded-For": "203.0.113.9", "X_B": "lost"},
        )
    assert status == 200
    assert "X-Real-IP: 127.0.0.1\n" in headers
    assert "X-Forwarded-For: 203.0.113.9, 127.0.0.1\n" in headers
    assert "Host: localhost\n" in headers
    assert "lost" not in headers


def test_nginx_has_elastic_beanstalks_limits() -> None:
    with upstream() as port, nginx(port) as front:
        assert post(front, b"x" * 1_048_576)[0] == 200
        assert post(front, b"x" * 1_048_577)[0] == 413


def test_nginxs_limits_can_be_set() -> None:
    with upstream(seconds=2) as port, nginx(port, proxy_read_timeout="300ms") as front:
        assert post(front)[0] == 504


def test_nginx_without_its_upstream_is_a_bad_gateway() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with nginx(unused.getsockname()[1]) as front:
            assert post(front)[0] == 502
