"""Checks that the daemon's POST reaches the dispatcher, and a scaler the backlog."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage
from django.http.request import validate_host
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils import translation

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.casts import Network
from beanstalk_dispatch.conf.variables import BACKLOG_TOKEN, QUEUES
from beanstalk_dispatch.deploying.dispatcher_path import has_urls
from beanstalk_dispatch.problems.findings import problem
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES

from .registry import Check, on_every_machine, on_workers

_COMMON: Final = "django.middleware.common.CommonMiddleware"
_SECURITY: Final = "django.middleware.security.SecurityMiddleware"
_LOGIN: Final = "django.contrib.auth.middleware.LoginRequiredMiddleware"

_serves: Final = ContextVar("_serves", default=True)
"""True if this process serves the dispatcher's URL."""

View = Callable[..., Any]


@contextmanager
def without_endpoint() -> Iterator[None]:
    """Run no check of the dispatcher's URL: beanstalk_worker and Lambda serve none."""
    token = _serves.set(False)
    try:
        yield
    finally:
        _serves.reset(token)


def _path_and_view(url_name: str) -> tuple[str, View] | None:
    try:
        path = reverse(url_name)
        return path, resolve(path).func
    except (NoReverseMatch, Resolver404):
        return None


def _find_dispatcher() -> tuple[str, View] | None:
    """Return the dispatcher's path and view; None if no URL leads to it."""
    return _path_and_view("beanstalk_dispatcher") if has_urls() else None


def _on_the_dispatcher(find: Callable[[str, View], Iterator[CheckMessage]]) -> Check:
    """Have a check called with the dispatcher's path and view, on workers with a URL for it."""

    @on_workers
    @functools.wraps(find)
    def find_if_routed(config: Config) -> Iterator[CheckMessage]:
        if _serves.get() and (dispatcher := _find_dispatcher()) is not None:
            yield from find(*dispatcher)

    return find_if_routed


@_on_the_dispatcher
def _ssl_redirect(path: str, view: View) -> Iterator[CheckMessage]:
    prefix = path.lstrip("/")
    exempt = any(re.search(pattern, prefix) for pattern in settings.SECURE_REDIRECT_EXEMPT)
    if settings.SECURE_SSL_REDIRECT and _SECURITY in settings.MIDDLEWARE and not exempt:
        yield problem("E014", prefix=prefix)


@_on_the_dispatcher
def _www_redirect(path: str, view: View) -> Iterator[CheckMessage]:
    if settings.PREPEND_WWW and _COMMON in settings.MIDDLEWARE:
        yield problem("E015")


@_on_the_dispatcher
def _csrf_protection(path: str, view: View) -> Iterator[CheckMessage]:
    if not getattr(view, "csrf_exempt", False):
        yield problem("E016")


@_on_the_dispatcher
def _allowed_hosts(path: str, view: View) -> Iterator[CheckMessage]:
    allowed = settings.ALLOWED_HOSTS
    if (settings.DEBUG and not allowed) or _COMMON not in settings.MIDDLEWARE:
        return  # without that middleware, most projects never look at the host
    if not validate_host("localhost", allowed):
        yield problem("E017")


@on_workers
def _trusted_everybody(config: Config) -> Iterator[CheckMessage]:
    if _serves.get() and not config.signing_keys and _has_everybody(config.trusted_peers or ()):
        yield problem("E021")


def _has_everybody(networks: tuple[Network, ...]) -> bool:
    """Return True if the networks together have every address of IPv4 or of IPv6."""
    by_version = [[each for each in networks if each.version == version] for version in (4, 6)]
    return any(
        each.prefixlen == 0
        for same in by_version
        for each in ipaddress.collapse_addresses(same)  # type: ignore[type-var]
    )


@_on_the_dispatcher
def _login_middleware(path: str, view: View) -> Iterator[CheckMessage]:
    for name in settings.MIDDLEWARE:
        exempt = name == _LOGIN and not getattr(view, "login_required", True)
        if re.search(r"login_?required", name, re.IGNORECASE) and not exempt:
            yield problem("W003", name=name)


@_on_the_dispatcher
def _translated_url(path: str, view: View) -> Iterator[CheckMessage]:
    paths = set()
    for language, _ in settings.LANGUAGES[:2] if settings.USE_I18N else ():
        with translation.override(language):
            paths.add(reverse("beanstalk_dispatcher"))
    if len(paths) > 1:
        yield problem("W005")


@_on_the_dispatcher
def _upload_limit(path: str, view: View) -> Iterator[CheckMessage]:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if limit is not None and limit < MAX_MESSAGE_BYTES:
        yield problem("W010", limit=limit, maximum=MAX_MESSAGE_BYTES)


@on_workers
def _missing_url(config: Config) -> Iterator[CheckMessage]:
    if _serves.get() and has_urls() and _find_dispatcher() is None:
        yield problem("W014")


@on_every_machine
def _unreachable_backlog(config: Config) -> Iterator[CheckMessage]:
    if config.backlog_token is None or not _serves.get():
        return
    variable = BACKLOG_TOKEN.variable
    if not config.work_queues:
        queues = QUEUES.variable
        reason = f"{queues} names no queue that a worker reads, so the answer is 503"
        hint = f"Set {queues} on this process, too."
    elif has_urls() and _path_and_view("beanstalk_backlog") is None:
        reason = "no URL leads to the backlog"
        hint = "Include beanstalk_dispatch.urls in your root urls.py as it is."
    else:
        return
    yield problem("W020", variable=variable, reason=reason, hint=hint)
