"""What must hold whatever a worker is sent: one check, for Hypothesis and for atheris.

Knows neither pytest nor where inputs come from.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

from django.core.handlers.wsgi import WSGIRequest
from django.core.signing import BadSignature, Signer
from django.http import HttpResponse
from django.utils import module_loading

from beanstalk_dispatch import conf, views
from beanstalk_dispatch.conf.variables import PREFIX
from beanstalk_dispatch.consumers.endpoint import holding
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.messages.outcomes import OUTCOMES
from beanstalk_dispatch.running.definitions import dispatch_table as table
from beanstalk_dispatch.running.definitions.configured import safe_task_class
from beanstalk_dispatch.running.recent_deliveries import RECENT
from beanstalk_dispatch.sqs.clients import Clients
from tests.jobs import calls

KEYS: Final = ("hush-hush-new-signing-key", "hush-hush-old-signing-key")
SECRET: Final = "hush-hush"
"""Stands in every secret, and in nothing else; too long to come up in a signature by chance."""
TABLE: Final = {
    "record": "tests.jobs.record",
    "fail": "tests.jobs.fail",
    "retry": "tests.jobs.AlwaysRetry",
    "recorder": "tests.jobs.Recorder",
}
DECOYS: Final = ("antigravity", "this", "tests.fuzz_decoy", "turtledemo")
"""Modules that nobody has imported; names of functions are drawn from them."""
STATUSES: Final = frozenset(row.status for row in OUTCOMES.values()) | {404, 405}
MAX_TEXT: Final = 1500
"""Characters of a response, or of a log line without a traceback."""

PERIODIC: Final = "recorder"
"""The one name that a POST without a body may run."""

tried = 0


class Broken(AssertionError):
    """Something that must hold does not."""


def demand(holds: object, what: str) -> None:
    if not holds:
        raise Broken(what)


def is_signed(body: str, queue: str) -> bool:
    """Whether one of KEYS has signed a body for this queue, and what is inside a dead letter.

    Asks Django, and nothing of the package, which may be what is wrong.
    """
    signer = Signer(
        key=KEYS[0],
        salt=f"beanstalk_dispatch.message.{queue}",
        fallback_keys=list(KEYS[1:]),
    )
    try:
        content = json.loads(signer.unsign(body.strip()))
    except BadSignature:
        return False
    return content.get("dead_letter") is None or is_signed(content["body"], queue)


class Log(logging.Handler):
    """Keeps what a log file would show."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, bool]] = []

    def emit(self, record: logging.LogRecord) -> None:
        has_traceback = bool(record.exc_info and record.exc_info[0])
        self.lines.append((self.format(record), has_traceback))


class Client:
    """Takes what is sent, in place of SQS."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def get_queue_url(self, *, QueueName: str) -> dict[str, str]:  # noqa: N803
        return {"QueueUrl": f"http://127.0.0.1:9/1/{QueueName}"}

    def send_message(self, *, MessageBody: str, **options: Any) -> dict[str, str]:  # noqa: N803
        self.bodies.append(MessageBody)
        return {"MessageId": "from-sqs"}


class Worker:
    """A worker machine's dispatcher, without a network."""

    def __init__(self, log: Log, client: Client, imported: list[str], *, has_keys: bool) -> None:
        self.log, self.client, self.imported = log, client, imported
        self.has_keys = has_keys

    def post(self, body: bytes, meta: Mapping[str, str] | None = None) -> HttpResponse:
        """POST ``body`` as aws-sqsd does; ``meta`` goes over its headers."""
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/beanstalk_dispatch/dispatcher",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_X_AWS_SQSD_QUEUE": "q",
            "HTTP_X_AWS_SQSD_MSGID": "from-sqs",
            "wsgi.input": io.BytesIO(body),
            **(meta or {}),
        }
        self.start()
        request = WSGIRequest(environ)
        response = views.dispatcher(request)
        self.check(response)
        if self.has_keys and calls:
            queue = str(environ["HTTP_X_AWS_SQSD_QUEUE"])
            read = request.body.decode()  # CONTENT_LENGTH may have cut it
            is_periodic = not read.strip() and environ.get("HTTP_X_AWS_SQSD_TASKNAME") == PERIODIC
            demand(is_periodic or is_signed(read, queue), "ran what no key has signed")
        return response

    def start(self) -> None:
        global tried  # noqa: PLW0603
        tried += 1
        calls.clear()
        THROTTLE.forget()  # or most of their lines would not be written
        RECENT.forget()  # or only the first of the messages with one id would run
        self.log.lines.clear()
        self.client.bodies.clear()

    def check(self, response: HttpResponse) -> None:
        status, text = response.status_code, response.content.decode()
        demand(status in STATUSES, f"status {status}")
        failed = any(has_traceback for _, has_traceback in self.log.lines)
        demand(status != 500 or failed, f"500 without a failed task: {self.log.lines}")
        content = json.loads(text or "{}")
        message = content.get("message", "")
        demand(content == ({"error": status, "message": message} if status != 200 else {}), text)
        demand(message.isprintable() and "Traceback" not in text and 'File "' not in text, text)
        demand(len(text) <= MAX_TEXT, f"{len(text)} characters in a response")
        demand(SECRET not in text + str(response.headers), f"secret in {text}")
        for line, has_traceback in self.log.lines:
            demand(SECRET not in line, f"secret in {line}")
            is_ours = has_traceback and "function=None" in line
            demand(not is_ours, f"an error before the message was read: {line}")
            demand(has_traceback or line.isprintable(), f"line break in {line!r}")
            demand(has_traceback or len(line) <= MAX_TEXT, f"{len(line)} characters in a log line")
        for body in self.client.bodies:
            demand(body.isascii() and SECRET not in body, f"sent {body}")
        demand(set(self.imported) <= set(TABLE.values()), f"imported {self.imported}")
        is_free = not any(name in sys.modules for name in DECOYS)
        demand(is_free, "a module outside of the table is imported")


@contextmanager
def worker(*, keys: bool = False, dead_letter_queue: bool = False, **more: str) -> Iterator[Worker]:
    """A configured Worker; for as long as the block lasts, nothing is sent to SQS."""
    variables = {
        "WORKER": "True",
        "DISPATCH_TABLE": json.dumps(TABLE),
        "DISPATCH_PERIODIC_TASKS": PERIODIC,
        "DISPATCH_CRASH_LEDGER": "off",
        "DISPATCH_QUEUES": "q=q dead=dead",
        "DISPATCH_SQS_KEY": "hush-hush-key",
        "DISPATCH_SQS_SECRET": "hush-hush-secret",
        "DISPATCH_SQS_TOKEN": "hush-hush-token",
        **({"DISPATCH_SIGNING_KEYS": " ".join(KEYS)} if keys else {}),
        **({"DISPATCH_DEAD_LETTER_QUEUE": "dead"} if dead_letter_queue else {}),
        **more,
    }
    log, client, imported = Log(), Client(), list[str]()

    def import_string(path: str) -> Any:
        imported.append(path)
        return module_loading.import_string(path)

    logger = logging.getLogger()
    prefixed = {PREFIX + name: value for name, value in variables.items()}
    with (
        mock.patch.dict(os.environ, prefixed),
        mock.patch.object(Clients, "get", return_value=client),
        mock.patch(
            "beanstalk_dispatch.running.definitions.declared_tasks.import_string", import_string
        ),
        mock.patch.object(holding, "_LONGEST_SECONDS", 0),
        mock.patch.object(logger, "handlers", [log]),
    ):
        conf.clear_caches()
        table._resolved_names.cache_clear()
        safe_task_class(conf.get_config())  # the configuration's own import
        imported.clear()
        yield Worker(log, client, imported, has_keys=keys)
    conf.clear_caches()
