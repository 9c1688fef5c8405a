"""One POST as the daemon makes it, through the project's own middleware, and its answer.

No task runs: the dispatcher recognises the request and answers it before it reads a message.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit
from wsgiref.util import setup_testing_defaults

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.handlers.wsgi import WSGIHandler
from django.http.request import validate_host
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch
from django.utils.module_loading import import_string

from beanstalk_dispatch.consumers.endpoint.sqsd import DOCTOR_KEY
from beanstalk_dispatch.deploying.dispatcher_path import dispatcher_path, leads_to_the_dispatcher

from .check_log import do_not_log_on_first_request
from .findings import ok, problem

TOPIC: Final = "daemon's POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of the project."""

    status: int
    location: str = ""
    """The URL that a redirect leads to."""
    content: bytes = field(default=b"", repr=False)
    error: str = ""
    """The exception that came instead of an answer. The status is 500 then."""

    def json(self) -> Mapping[str, Any]:
        """Return the JSON object of the body; empty if it is not one."""
        try:
            found = json.loads(self.content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


# --- the request -----------------------------------------------------------------------------


def post(path: str) -> Answer:
    """POST to ``path`` with ``Host: localhost``, in this process. Nothing is logged meanwhile.

    Nor are the failing checks, which are findings of the doctor.
    """
    do_not_log_on_first_request()
    try:
        with _without_logging():
            return _call_application(_load_application(), _make_environ(path))
    except Exception as exc:
        return Answer(status=500, error=f"{type(exc).__name__}: {exc}")


def _load_application() -> Callable[..., Iterable[bytes]]:
    name = getattr(settings, "WSGI_APPLICATION", None)
    application: Callable[..., Iterable[bytes]] = import_string(name) if name else WSGIHandler()
    return application


def _make_environ(path: str) -> dict[str, Any]:
    """Return the request's variables, as gunicorn makes them behind Elastic Beanstalk's nginx."""
    body = b"{}"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_X_REAL_IP": "127.0.0.1",
        "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_USER_AGENT": "aws-sqsd/3.0.4",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        DOCTOR_KEY: True,
    }
    setup_testing_defaults(environ)
    return environ


def _call_application(
    application: Callable[..., Iterable[bytes]], environ: dict[str, Any]
) -> Answer:
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        started.append((status, headers))

    response = application(environ, start_response)
    try:
        content = b"".join(response)
    finally:
        getattr(response, "close", bool)()
    status, headers = started[-1]
    location = next((value for name, value in headers if name.lower() == "location"), "")
    return Answer(status=int(status.split()[0]), location=location, content=content)


@contextmanager
def _without_logging() -> Iterator[None]:
    """Log nothing: Django would mail a refused host to ADMINS."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


# --- what it shows ---------------------------------------------------------------------------


def explain(answer: Answer, path: str) -> CheckMessage:
    """Return the meaning of the answer for the daemon's messages, with a hint."""
    content = answer.json()
    if content.get(DOCTOR_KEY) is True:
        return ok(TOPIC, f"POST {path} reaches the dispatcher")
    if answer.status == content.get("error") and "message" in content:
        return _of_the_dispatcher(answer.status, str(content["message"]))
    if finding := _of_any_path(answer, path):
        return finding
    if not leads_to_the_dispatcher(path):
        return _of_a_wrong_path(answer, path)
    return _of_a_middleware(answer, path)


def _of_the_dispatcher(status: int, message: str) -> CheckMessage:
    if status == 404:
        return problem("W114", TOPIC)
    if status == 403:
        return problem("E115", TOPIC)
    return problem("E116", TOPIC, status=status, message=message)


def _of_any_path(answer: Answer, path: str) -> CheckMessage | None:
    """Return the finding for an answer that the project gives whatever the path is."""
    target = urlsplit(answer.location)
    if answer.error:
        return problem("E117", TOPIC, error=answer.error)
    if answer.status == 400 and not _accepts_localhost():
        return problem("E017", TOPIC)
    if target.scheme == "https":
        return problem("E014", TOPIC, prefix=(dispatcher_path() or path).lstrip("/"))
    if target.hostname == "www.localhost":
        return problem("E015", TOPIC)
    return None


def _accepts_localhost() -> bool:
    allowed = settings.ALLOWED_HOSTS or (["localhost", "127.0.0.1"] if settings.DEBUG else [])
    return validate_host("localhost", allowed)


def _of_a_wrong_path(answer: Answer, path: str) -> CheckMessage:
    right = dispatcher_path()
    if right is None:
        return problem("E119", TOPIC, status=answer.status)
    if path == "/":
        reason = "HttpPath is '/', Elastic Beanstalk's default, which is not the dispatcher"
    elif right.startswith(path.rstrip("/")):
        reason = f"HttpPath {path!r} is too short"
    else:
        reason = f"HttpPath {path!r} is not the dispatcher"
    lost = "; the daemon deletes such messages, and they never run" if answer.status == 200 else ""
    return problem("E120", TOPIC, reason=reason, status=answer.status, lost=lost, right=right)


def _of_a_middleware(answer: Answer, path: str) -> CheckMessage:
    target = urlsplit(answer.location).path
    facts = {"status": answer.status, "path": path, "target": target}
    if answer.location:
        return problem("E118" if target == _login_path() else "E121", TOPIC, **facts)
    return problem("E016" if answer.status == 403 else "E122", TOPIC, **facts)


def _login_path() -> str | None:
    try:
        return urlsplit(resolve_url(settings.LOGIN_URL)).path
    except NoReverseMatch:
        return None
