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

from beanstalk_dispatch.conf.variables import TRUSTED_PEERS, WORKER
from beanstalk_dispatch.consumers.endpoint.sqsd import DOCTOR_KEY
from beanstalk_dispatch.deploying.dispatcher_path import dispatcher_path, leads_to_the_dispatcher

from .findings import ok, problem

TOPIC: Final = "daemon's POST"
_INCLUDE: Final = (
    "add path('beanstalk_dispatch/', include('beanstalk_dispatch.urls')) to your root urls.py"
)


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
    """POST to ``path`` with ``Host: localhost``, in this process. Nothing is logged meanwhile."""
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
    for find in (
        _find_exception,
        _refused_host,
        _redirect_of_the_host,
        _wrong_path,
        _find_redirect,
    ):
        if finding := find(answer, path):
            return finding
    return _explain_status(answer, path)


def _of_the_dispatcher(status: int, message: str) -> CheckMessage:
    if status == 404:
        variable = WORKER.variable
        return problem(
            "W114",
            TOPIC,
            f"the dispatcher answers 404, because {variable} is not True here",
            f"on a worker: eb setenv {variable}=True; on a web machine this is right",
        )
    if status == 403:
        variable = TRUSTED_PEERS.variable
        return problem(
            "E115",
            TOPIC,
            f"the dispatcher answers 403, because {variable} does not contain 127.0.0.1",
            f"add 127.0.0.0/8 to {variable}, or remove the variable",
        )
    return problem(
        "E116",
        TOPIC,
        f"the dispatcher answers {status}: {message}",
        "run manage.py check, and the log",
    )


def _find_exception(answer: Answer, path: str) -> CheckMessage | None:
    if not answer.error:
        return None
    return problem(
        "E117",
        TOPIC,
        f"the project raises {answer.error}",
        "correct it, and see the traceback with: python manage.py runserver",
    )


def _refused_host(answer: Answer, path: str) -> CheckMessage | None:
    allowed = settings.ALLOWED_HOSTS or (["localhost", "127.0.0.1"] if settings.DEBUG else [])
    if answer.status != 400 or validate_host("localhost", allowed):
        return None
    return problem(
        "E017",
        TOPIC,
        "Django answers 400, because ALLOWED_HOSTS does not contain 'localhost', the host that the "
        "daemon POSTs to",
        "ALLOWED_HOSTS = ['localhost', …] on the worker",
    )


def _redirect_of_the_host(answer: Answer, path: str) -> CheckMessage | None:
    target = urlsplit(answer.location)
    if target.scheme == "https":
        prefix = path.lstrip("/").rpartition("/")[0]
        return problem(
            "E014",
            TOPIC,
            f"redirected to https ({answer.status}): SECURE_SSL_REDIRECT, or a middleware like it. "
            "The daemon sends plain HTTP, and counts a redirect as a failure",
            f"SECURE_REDIRECT_EXEMPT = [r'^{prefix}/']",
        )
    if target.hostname == "www.localhost":
        return problem(
            "E015",
            TOPIC,
            f"redirected to www.localhost ({answer.status}) by PREPEND_WWW",
            "PREPEND_WWW = False on the worker",
        )
    return None


def _wrong_path(answer: Answer, path: str) -> CheckMessage | None:
    if leads_to_the_dispatcher(path):
        return None
    right = dispatcher_path()
    if right is None:
        message = f"no URL leads to the dispatcher: the project answers {answer.status}"
        return problem("E119", TOPIC, message, _INCLUDE)
    if path == "/":
        what = "HttpPath is '/', Elastic Beanstalk's default, which is not the dispatcher"
    elif right.startswith(path.rstrip("/")):
        what = f"HttpPath {path!r} is too short"
    else:
        what = f"HttpPath {path!r} is not the dispatcher"
    lost = "; the daemon deletes such messages, and they never run" if answer.status == 200 else ""
    return problem(
        "E120",
        TOPIC,
        f"{what}: the project answers {answer.status}{lost}",
        f"HttpPath: {right} in the namespace aws:elasticbeanstalk:sqsd",
    )


def _find_redirect(answer: Answer, path: str) -> CheckMessage | None:
    if not answer.location:
        return None
    target = urlsplit(answer.location).path
    if target == _login_path():
        return problem(
            "E118",
            TOPIC,
            f"redirected to the login page {target} ({answer.status})",
            f"exempt {path} in the middleware that requires a login",
        )
    return problem(
        "E121",
        TOPIC,
        f"redirected to {target} ({answer.status}); the daemon counts a redirect as a failure",
        f"exempt {path} in the middleware that redirects",
    )


def _login_path() -> str | None:
    try:
        return urlsplit(resolve_url(settings.LOGIN_URL)).path
    except NoReverseMatch:
        return None


def _explain_status(answer: Answer, path: str) -> CheckMessage:
    if answer.status == 403:
        return problem(
            "E016",
            TOPIC,
            "answered 403 before the dispatcher, most often by CSRF protection",
            "include beanstalk_dispatch.urls as it is, without a decorator around its view",
        )
    return problem(
        "E122",
        TOPIC,
        f"answered {answer.status} before the dispatcher, by a middleware of the project",
        f"exempt {path} in that middleware",
    )
