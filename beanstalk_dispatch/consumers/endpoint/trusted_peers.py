"""Who may POST: the peer of a request, seen through Elastic Beanstalk's proxy."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from beanstalk_dispatch.conf.casts import Network
from beanstalk_dispatch.conf.variables import TRUSTED_PEERS

_LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_CONTAINER_MARKS: Final = ("/.dockerenv", "/run/.containerenv")
_ROUTES: Final = "/proc/net/route"


def refusal(meta: Mapping[str, str], trusted: tuple[Network, ...] | None) -> str | None:
    """Return the reason to refuse a request with this ``request.META``; None if it may pass.

    ``trusted`` has the networks of the configuration. None stands for loopback and the container's
    gateway.

    Behind nginx every request's REMOTE_ADDR is 127.0.0.1; nginx puts the true peer in X-Real-IP
    and appends it to X-Forwarded-For. So every address that is given must be trusted: the
    daemon's own are all loopback, and a forged header can only add a reason to refuse.
    """
    return _refusal_reason(
        meta.get("REMOTE_ADDR", ""),
        meta.get("HTTP_X_REAL_IP", ""),
        meta.get("HTTP_X_FORWARDED_FOR", ""),
        trusted,
    )


@functools.lru_cache(maxsize=256)
def _refusal_reason(
    peer: str, real: str, forwarded: str, trusted: tuple[Network, ...] | None
) -> str | None:
    addresses = [text.strip() for text in (peer, real, *forwarded.split(",")) if text.strip()]
    if not addresses:
        return "the request names no peer address"
    for text in addresses:
        if not _is_trusted(text, trusted):
            shown = "".join(text.split())[:64]  # a forged header may contain anything
            return f"{shown!r} is not in {TRUSTED_PEERS.variable}"
    return None


def _is_trusted(text: str, trusted: tuple[Network, ...] | None) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in _networks(trusted))


def _networks(trusted: tuple[Network, ...] | None) -> tuple[Network, ...]:
    if trusted is not None:
        return trusted
    gateway = container_gateway()
    return (*_LOOPBACK, ipaddress.ip_network(gateway)) if gateway else _LOOPBACK


@functools.cache
def container_gateway() -> str | None:
    """Return the default route's gateway in a container: there the host's nginx comes from it.

    Outside of a container the default route leads to other machines, and is not trusted.
    """
    if not any(os.path.exists(mark) for mark in _CONTAINER_MARKS):
        return None
    try:
        rows = Path(_ROUTES).read_text().splitlines()[1:]
    except OSError:
        return None
    for row in rows:
        _, destination, gateway, *_ = row.split()
        if destination == "00000000" and gateway != "00000000":
            return socket.inet_ntoa(struct.pack("<L", int(gateway, 16)))
    return None
