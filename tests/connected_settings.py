"""Settings that connect when they are imported, as a project may do."""

from __future__ import annotations

import os
import socket

from .settings import *  # noqa: F403

_address, _path = os.environ["CONNECTED_EARLY"].split()
_host, _, _port = _address.partition(":")
CONNECTIONS = [socket.create_connection((_host, int(_port))), socket.socket(socket.AF_UNIX)]
CONNECTIONS[1].connect(_path)
