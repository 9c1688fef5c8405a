"""System checks for what breaks a worker in practice. None touches the network.

docs/checks.md has a row for each id. https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.http.request import validate_host
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils import translation

from . import conf
from . import dispatch_table as table
from .conf import SETTINGS, Config
from .exceptions import ConfigurationError, UnknownFunction
from .sqs.quotas import MAX_MESSAGE_BYTES

ID = "beanstalk_dispatch"
MIN_KEY_LENGTH = 16
MIN_LEASE_ENTRIES = 100_000
_COMMON = "django.middleware.common.CommonMiddleware"
_SECURITY = "django.middleware.security.SecurityMiddleware"
_UNSHARED_CACHES = ("LocMemCache", "DummyCache", "FileBasedCache")
_LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"


def register() -> None:
    checks.register(check, "beanstalk_dispatch")


def check(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Everything that can be told without a network."""
    try:
        config = conf.get_config()
    except ConfigurationError as exc:
        hint = "Run 'eb printenv' (or look at your .env) and correct the variables named above."
        return [checks.Error(str(exc), hint=hint, id=f"{ID}.E001")]
    found = [*_unknown_variables(), *_plaintext_keys(config), *_short_keys(config)]
    found += _table(config)
    if config.worker:
        found += [*_worker(config), *_hosts(), *_urls()]
    return found


def _table(config: Config) -> Iterator[CheckMessage]:
    for name in config.table:
        try:
            table.resolve(name, config)
        except UnknownFunction as exc:
            why = f": {exc.__cause__}" if exc.__cause__ else ""
            yield checks.Error(
                f"{SETTINGS['table'].variable}: {name!r} cannot run. {exc}{why}",
                hint="Write name=package.module.function, or a SafeTask subclass.",
                id=f"{ID}.E002",
            )
    try:
        table.safe_task_class(config)
    except ConfigurationError as exc:
        example = SETTINGS["safe_task"].default_text
        hint = f"Write the dotted path of a SafeTask subclass, like {example}."
        yield checks.Error(str(exc), hint=hint, id=f"{ID}.E003")


def _worker(config: Config) -> Iterator[CheckMessage]:
    if not config.table:
        yield checks.Warning(
            f"This is a worker, but {SETTINGS['table'].variable} is empty: every message fails.",
            hint=f"eb setenv '{SETTINGS['table'].variable}=name=package.module.function'",
            id=f"{ID}.W011",
        )
    for name in config.periodic_tasks:
        if name not in config.table:
            yield checks.Error(
                f"{SETTINGS['periodic_tasks'].variable} lists {name!r}, which "
                f"{SETTINGS['table'].variable} does not.",
                hint="Add it to the table, or remove it here.",
                id=f"{ID}.E005",
            )
    yield from _lease(config)
    if not config.signing_keys:
        variable = SETTINGS["signing_keys"].variable
        yield checks.Warning(
            f"{variable} is not set: whoever may send to the queue may run every listed function.",
            hint=f"Set {variable} to one long random text on the web and the worker environment.",
            id=f"{ID}.W007",
        )


def _lease(config: Config) -> Iterator[CheckMessage]:
    alias, variable = config.lease_cache, SETTINGS["lease_cache"].variable
    if alias is None:
        return
    cache = settings.CACHES.get(alias)
    backend = cache.get("BACKEND", "") if cache else ""
    if cache is None or backend.endswith(_UNSHARED_CACHES):
        what = f"the {backend.rpartition('.')[2]}" if cache else "not in CACHES"
        yield checks.Error(
            f"{variable}: {alias!r} is {what}, which the worker processes do not share.",
            hint="Name a cache in Redis, Memcached or the database.",
            id=f"{ID}.E006",
        )
    elif backend.endswith(".DatabaseCache") and _max_entries(cache) < MIN_LEASE_ENTRIES:
        yield checks.Error(
            f"{variable}: the cache {alias!r} keeps {_max_entries(cache):,} entries and deletes "
            "the rest, so what has run would run again.",
            hint=f"CACHES = {{{alias!r}: {{..., 'OPTIONS': {{'MAX_ENTRIES': 10_000_000}}}}}}",
            id=f"{ID}.E004",
        )
    elif backend.endswith(".RedisCache") and "socket_timeout" not in cache.get("OPTIONS", {}):
        yield checks.Warning(
            f"{variable}: the cache {alias!r} has no socket_timeout: a Redis that hangs would "
            "hang every thread of the worker.",
            hint=f"CACHES = {{{alias!r}: {{..., 'OPTIONS': {{'socket_timeout': 5}}}}}}",
            id=f"{ID}.W012",
        )


def _max_entries(cache: dict[str, Any]) -> int:
    """As django.core.cache.backends.base.BaseCache reads it."""
    return int(cache.get("max_entries", cache.get("OPTIONS", {}).get("MAX_ENTRIES", 300)))


def _hosts() -> Iterator[CheckMessage]:
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:
        return
    if not validate_host("localhost", allowed):
        yield checks.Warning(
            "The daemon POSTs to the host 'localhost', which ALLOWED_HOSTS does not list: "
            "Django answers 400 and the message is not run.",
            hint="Add 'localhost' to ALLOWED_HOSTS on the worker.",
            id=f"{ID}.W009",
        )


def _urls() -> Iterator[CheckMessage]:
    try:
        path = reverse("beanstalk_dispatcher")
        view = resolve(path).func
    except (NoReverseMatch, Resolver404):
        yield checks.Warning(
            "No URL leads to the dispatcher: the daemon's POST is answered 404.",
            hint="Add path('beanstalk_dispatch/', include('beanstalk_dispatch.urls')) to your "
            "root urls.py, unless manage.py beanstalk_worker is all that runs here.",
            id=f"{ID}.W014",
        )
        return
    yield from _redirects(path)
    yield from _view(view)
    yield from _upload_limit()


def _redirects(path: str) -> Iterator[CheckMessage]:
    prefix = path.lstrip("/")
    exempt = any(re.search(pattern, prefix) for pattern in settings.SECURE_REDIRECT_EXEMPT)
    if settings.SECURE_SSL_REDIRECT and _SECURITY in settings.MIDDLEWARE and not exempt:
        yield checks.Warning(
            "SECURE_SSL_REDIRECT redirects the daemon's plain HTTP POST; it counts as a failure.",
            hint=f"SECURE_REDIRECT_EXEMPT = [r'^{prefix}'], or no SECURE_SSL_REDIRECT on workers.",
            id=f"{ID}.W001",
        )
    if settings.PREPEND_WWW and _COMMON in settings.MIDDLEWARE:
        yield checks.Warning(
            "PREPEND_WWW redirects the daemon's POST to www.localhost; it counts as a failure.",
            hint="Set PREPEND_WWW = False on the worker.",
            id=f"{ID}.W002",
        )
    paths = set()
    for language, _ in settings.LANGUAGES[:2] if settings.USE_I18N else ():
        with translation.override(language):
            paths.add(reverse("beanstalk_dispatcher"))
    if len(paths) > 1:
        yield checks.Warning(
            "The dispatcher's URL is inside i18n_patterns: it changes with the language.",
            hint="Move its path() out of i18n_patterns().",
            id=f"{ID}.W005",
        )


def _view(view: Callable[..., Any]) -> Iterator[CheckMessage]:
    if not getattr(view, "csrf_exempt", False):
        yield checks.Warning(
            "The dispatcher is not exempt from CSRF protection any more: the POST is answered 403.",
            hint="Include beanstalk_dispatch.urls as it is, without a decorator around its view.",
            id=f"{ID}.W004",
        )
    for name in settings.MIDDLEWARE:
        exempt = name == _LOGIN and not getattr(view, "login_required", True)
        if re.search(r"login_?required", name, re.IGNORECASE) and not exempt:
            yield checks.Warning(
                f"{name} may redirect the daemon's POST to a login page; it counts as a failure.",
                hint="Exempt the dispatcher's path in that middleware, or use Django's own.",
                id=f"{ID}.W003",
            )


def _upload_limit() -> Iterator[CheckMessage]:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if limit is not None and limit < MAX_MESSAGE_BYTES:
        yield checks.Warning(
            f"DATA_UPLOAD_MAX_MEMORY_SIZE is {limit:,} bytes, a message may have "
            f"{MAX_MESSAGE_BYTES:,}: larger ones are answered 400.",
            hint=f"Set it to {MAX_MESSAGE_BYTES} or more on the worker.",
            id=f"{ID}.W010",
        )


def _plaintext_keys(config: Config) -> Iterator[CheckMessage]:
    for field in ("sqs_key", "sqs_secret", "sqs_token", "signing_keys"):
        if config.sources[field] != "settings":
            continue
        value = getattr(config, field)
        keys = {value} if isinstance(value, str) else set(value)
        if not all(any(key in text for text in os.environ.values()) for key in keys):
            variable = SETTINGS[field].variable
            yield checks.Warning(
                f"{variable} stands in your settings as plain text.",
                hint=f"Remove it and set the environment property {variable}, or for SQS use the "
                "instance profile.",
                id=f"{ID}.W006",
            )


def _short_keys(config: Config) -> Iterator[CheckMessage]:
    variable = SETTINGS["signing_keys"].variable
    if any(len(key) < MIN_KEY_LENGTH for key in config.signing_keys):
        yield checks.Warning(
            f"{variable} has a key of fewer than {MIN_KEY_LENGTH} characters: it can be guessed. "
            "A comma or a space in a key makes two of it.",
            hint='python -c "import secrets; print(secrets.token_urlsafe(32))"',
            id=f"{ID}.W013",
        )


def _unknown_variables() -> Iterator[CheckMessage]:
    for name in conf.unknown_variables():
        yield checks.Warning(
            f"{name} is set, but no such variable exists.",
            hint="Correct its spelling; 'docs/configuration.md' lists them all.",
            id=f"{ID}.W008",
        )
