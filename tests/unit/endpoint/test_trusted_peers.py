from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.endpoint import trusted_peers as peers
from tests.conftest import Environment

ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t00000000\t{gateway}\t0003\t0\t0\t0\t00000000\t0\t0\t0
"""


@pytest.fixture(autouse=True)
def _no_container(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(peers, "_CONTAINER_MARKS", ())
    peers.container_gateway.cache_clear()
    yield
    peers.container_gateway.cache_clear()


@pytest.mark.parametrize(
    ("peer", "real", "forwarded"),
    [
        ("127.0.0.1", None, None),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.53", "::1", "127.0.0.1, 127.0.0.1"),
        ("::1", None, None),
        ("::ffff:127.0.0.1", None, None),
        ("", "127.0.0.1", None),
    ],
)
def test_the_daemon_is_let_in(peer: str, real: str | None, forwarded: str | None) -> None:
    assert refusal(peer, real, forwarded) is None


@pytest.mark.parametrize(
    ("peer", "real", "forwarded"),
    [
        ("203.0.113.5", None, None),
        ("127.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("127.0.0.1", "203.0.113.5", "127.0.0.1, 203.0.113.5"),
        ("127.0.0.1", "127.0.0.1", "203.0.113.5, 127.0.0.1"),
        ("203.0.113.5", "127.0.0.1", "127.0.0.1"),
        ("172.17.0.1", None, None),
        ("::ffff:203.0.113.5", None, None),
        ("127.0.0.1", "localhost", None),
        ("127.0.0.1", None, "127.0.0.1:1234"),
        ("", None, None),
    ],
)
def test_nobody_else_is(peer: str, real: str | None, forwarded: str | None) -> None:
    assert refusal(peer, real, forwarded) is not None


def refusal(peer: str, real: str | None = None, forwarded: str | None = None) -> str | None:
    meta = {"REMOTE_ADDR": peer, "HTTP_X_REAL_IP": real, "HTTP_X_FORWARDED_FOR": forwarded}
    given = {name: value for name, value in meta.items() if value is not None}
    return peers.refusal(given, get_config())


def test_the_refusal_says_what_to_change() -> None:
    assert refusal("10.1.2.3") == "'10.1.2.3' is not in BEANSTALK_DISPATCH_TRUSTED_PEERS"
    assert peers.refusal({}, get_config()) == "the request names no peer address"


def test_trusted_networks_can_be_set(env: Environment) -> None:
    env(DISPATCH_TRUSTED_PEERS="10.0.0.0/8 127.0.0.1")
    assert refusal("10.1.2.3", "127.0.0.1") is None
    assert refusal("127.0.0.2") is not None


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mark = tmp_path / "dockerenv"
    mark.touch()
    monkeypatch.setattr(peers, "_CONTAINER_MARKS", (str(mark),))
    routes = tmp_path / "route"
    monkeypatch.setattr(peers, "_ROUTES", str(routes))
    return routes


def test_in_a_container_the_gateway_is_trusted(container: Path) -> None:
    container.write_text(ROUTES.format(gateway="010011AC"))
    assert peers.container_gateway() == "172.17.0.1"
    assert refusal("172.17.0.1", "127.0.0.1", "127.0.0.1") is None
    assert refusal("172.17.0.1", "203.0.113.5") is not None
    assert refusal("172.17.0.2") is not None


def test_a_container_without_a_gateway_trusts_loopback_only(container: Path) -> None:
    assert peers.container_gateway() is None
    peers.container_gateway.cache_clear()
    container.write_text(ROUTES.format(gateway="00000000"))
    assert peers.container_gateway() is None
    assert refusal("127.0.0.1") is None
