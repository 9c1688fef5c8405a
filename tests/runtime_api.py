"""A stand-in for Lambda's Runtime API, and a function that AWS's own runtime client runs.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.services import NO_COVERAGE, ROOT

HANDLER: Final = "beanstalk_dispatch.contrib.aws_lambda.handler"
_ARN: Final = "arn:aws:lambda:eu-west-1:123456789012:function:worker"


class Function:
    """A function with one execution environment: a process that runs one event at a time."""

    is_suspended: bool = False
    """Stop the process when it has answered, as Lambda may do."""

    def __init__(self, log: Path, **variables: str) -> None:
        self._log = log
        self._variables = variables
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._request_handler())
        self._server.daemon_threads = True
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.start()
        return self

    def start(self) -> None:
        """Start the process, as Lambda does again after it has ended."""
        # None ends the request of a process that was killed while it waited for an event.
        self._events: queue.Queue[tuple[dict[str, Any], float] | None] = queue.Queue()
        self._answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", HANDLER],
                cwd=ROOT, stdout=log, stderr=log,
                env=os.environ | {
                    "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_address[1]}",
                    "AWS_LAMBDA_FUNCTION_NAME": "worker",
                    "AWS_LAMBDA_FUNCTION_VERSION": "1",
                    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                    "AWS_LAMBDA_LOG_GROUP_NAME": "group",
                    "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
                    "BEANSTALK_WORKER": "True",
                    **NO_COVERAGE,
                    **self._variables,
                },
            )  # fmt: skip

    def invoke(self, event: dict[str, Any], *, seconds: float = 60) -> tuple[str, Any]:
        """``("response", …)``, or ``("error", …)`` of the runtime client."""
        self._events.put((event, seconds))
        return self.answer()

    def begin(self, event: dict[str, Any]) -> None:
        """Invoke it without waiting for the end."""
        self._events.put((event, 60))

    def answer(self) -> tuple[str, Any]:
        """The next answer of the process."""
        return self._answers.get(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._events.put(None)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _request_handler(self) -> type[BaseHTTPRequestHandler]:
        function = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                with suppress(ConnectionError):  # of a process that was killed
                    super().handle()

            def do_GET(self) -> None:
                invocation = function._events.get()
                if invocation is None:  # pragma: no cover - if the function is still alive then
                    return
                event, seconds = invocation
                content = json.dumps(event).encode()
                self.send_response(200)
                for name, value in {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(content)),
                    "Lambda-Runtime-Aws-Request-Id": "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
                    "Lambda-Runtime-Deadline-Ms": str(int((time.time() + seconds) * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": _ARN,
                    "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
                    # The runtime client crashes if one of these is missing.
                    "Lambda-Runtime-Client-Context": "{}",
                    "Lambda-Runtime-Cognito-Identity": "{}",
                    "Lambda-Runtime-Aws-Tenant-Id": "",
                    "Lambda-Runtime-Invocation-Id": "1",
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if function.is_suspended:
                    function.process.send_signal(signal.SIGSTOP)
                function._answers.put((self.path.rpartition("/")[2], body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Write nothing."""

        return Handler

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._server.shutdown()
        self._server.server_close()
