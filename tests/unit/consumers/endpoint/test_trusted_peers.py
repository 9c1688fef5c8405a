from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.endpoint import trusted_peers as peers
from tests.conftest import Environment

ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t00000000\t{gateway}\t0003\t0\t0\t0\t00000000\t0\t0\t0
"""


@pytest.fixture(autouse=True)
def real_places() -> tuple[Any, str]:
    """What the tests replace."""
    return peers._CONTAINER_MARKS, peers._ROUTES


@pytest.fixture(autouse=True)
def _no_container(real_places: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(peers, "_CONTAINER_MARKS", ())
    peers.container_gateway.cache_clear()
    peers._refusal_reason.cache_clear()
    yield
    peers.container_gateway.cache_clear()
    peers._refusal_reason.cache_clear()


@pytest.mark.parametrize(
    ("peer", "real", "forwarded"),
    [
        ("127.0.0.1", None, None),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.53", "::1", "127.0.0.1, 127.0.0.1"),
        ("127.0.0.1", " ", "127.0.0.1, ,"),
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
    return peers.refusal(given, get_config().trusted_peers)


def test_the_refusal_says_what_to_change() -> None:
    assert refusal("10.1.2.3") == "'10.1.2.3' is not in BEANSTALK_DISPATCH_TRUSTED_PEERS"
    assert peers.refusal({}, get_config().trusted_peers) == "the request names no peer address"


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
    peers._refusal_reason.cache_clear()
    container.write_text(ROUTES.format(gateway="00000000"))
    assert peers.container_gateway() is None
    assert refusal("127.0.0.1") is None


def test_a_default_route_without_a_gateway_is_passed_over(container: Path) -> None:
    header, *rows = ROUTES.format(gateway="010011AC").splitlines()
    on_link = "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0"
    container.write_text("\n".join([header, on_link, *rows]))
    assert peers.container_gateway() == "172.17.0.1"


def test_the_gateway_of_another_route_is_not_trusted(container: Path) -> None:
    header, *rows = ROUTES.format(gateway="010011AC").splitlines()
    to_a_network = "eth1\t0000000A\t0200000A\t0003\t0\t0\t0\t000000FF\t0\t0\t0"
    container.write_text("\n".join([header, to_a_network, *rows]))
    assert peers.container_gateway() == "172.17.0.1"
    assert refusal("10.0.0.2") is not None


def test_the_first_route_counts_as_well(container: Path) -> None:
    header, _, default = ROUTES.format(gateway="010011AC").splitlines()
    container.write_text(f"{header}\n{default}")
    assert peers.container_gateway() == "172.17.0.1"


@pytest.mark.parametrize(("mark", "is_container"), [
    ("/.dockerenv", True), ("/run/.containerenv", True), ("/nothing", False),
])  # fmt: skip
def test_docker_and_podman_leave_a_mark(
    mark: str, is_container: bool, monkeypatch: pytest.MonkeyPatch, real_places: tuple[Any, str]
) -> None:
    """Outside of a container the default route leads to other machines."""
    marks, _ = real_places
    asked: list[str] = []

    class Routes:
        def __init__(self, path: str) -> None:
            asked.append(path)

        def read_text(self) -> str:
            return ROUTES.format(gateway="010011AC")

    monkeypatch.setattr(peers, "_CONTAINER_MARKS", marks)
    monkeypatch.setattr(peers, "Path", Routes)
    monkeypatch.setattr("os.path.exists", lambda path: path == mark)
    assert peers.container_gateway() == ("172.17.0.1" if is_container else None)
    assert asked == (["/proc/net/route"] if is_container else [])


def test_a_refusal_shows_of_a_forged_header_what_fits_into_a_line() -> None:
    shown = "a" * 64
    variable = "BEANSTALK_DISPATCH_TRUSTED_PEERS"
    assert refusal("127.0.0.1", f"a\r\n a\t{shown}") == f"{shown!r} is not in {variable}"


@pytest.mark.parametrize(
    "peer",
    ["::ffff:10.1.2.3", "::ffff:0:10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::", "10.1.2.3 ,x",
     "010.1.2.3", "10.66051", "0xa010203", "[10.1.2.3]", "10.1.2.3%eth0", "10.1.2.3:80"],
)  # fmt: skip
def test_only_the_address_itself_or_its_ipv4_mapped_form_is_trusted(
    env: Environment, peer: str
) -> None:
    env(DISPATCH_TRUSTED_PEERS="10.1.2.3")
    assert (refusal(peer) is None) is (peer == "::ffff:10.1.2.3")
    env(DISPATCH_TRUSTED_PEERS="::ffff:0:0/96")  # of IPv6, so it covers no address of IPv4
    assert refusal(peer) is not None
