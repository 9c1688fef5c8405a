"""System checks for what breaks a worker in practice. None uses the network.

They stand in the order of their ids; docs/checks.md has a row for each.
https://docs.djangoproject.com/en/stable/topics/checks/
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.http.request import validate_host
from django.urls import NoReverseMatch, Resolver404, resolve, reverse
from django.utils import translation

from . import conf, dispatch_table
from .conf import SETTINGS, Config
from .conf.variables import (
    BACKLOG_TOKEN,
    LEASE_CACHE,
    OUTBOX,
    OUTBOX_DATABASES,
    PERIODIC_TASKS,
    QUEUES,
    RESULTS,
    SAFE_TASK,
    SIGNING_KEYS,
    TABLE,
    TASK_TIMEOUT,
    TASKS,
)
from .exceptions import ConfigurationError, UnknownFunction, listed
from .execution.monkey_patching import patched_by
from .execution.task_problems import problems_of
from .safe_task import SafeTask
from .scheduling import outbox
from .sqs.backlog import queue_names
from .sqs.quotas import MAX_MESSAGE_BYTES

ID = "beanstalk_dispatch"
_serves: Final = ContextVar("_serves", default=True)
MIN_LEASE_ENTRIES = 100_000
_COMMON = "django.middleware.common.CommonMiddleware"
_SECURITY = "django.middleware.security.SecurityMiddleware"
_UNSHARED_CACHES = ("LocMemCache", "DummyCache", "FileBasedCache")
RESULTS_APP = "beanstalk_dispatch.contrib.results"
UNSIGNED: Final = "anyone who may send to the queue may run every listed function"
SIGN_MESSAGES: Final = (
    f"Set {SIGNING_KEYS.variable} to one long random string, on the web environment first and then "
    'on the worker environment: python -c "import secrets; print(secrets.token_urlsafe(32))"'
)
_LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"

View = Callable[..., Any]
Check = Callable[[Config], Iterator[CheckMessage]]
_CHECKS: Final[list[Check]] = []


def register() -> None:
    """Add the checks to those of ``manage.py check``."""
    checks.register(check, "beanstalk_dispatch")


def check(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Everything that can be found without a network, in the order of the ids."""
    try:
        config = conf.get_config()
    except ConfigurationError as exc:
        hint = "Run 'eb printenv' (or look at your .env) and correct the variables named above."
        return [checks.Error(str(exc), hint=hint, id=f"{ID}.E001")]
    return [message for find in _CHECKS for message in find(config)]


# --- what a check needs ----------------------------------------------------------------------


def _check(find: Check) -> Check:
    """Have ``check`` call this one, after those above it."""
    _CHECKS.append(find)
    return find


def _check_on_workers(find: Check) -> Check:
    """A check that is called on workers only."""

    @_check
    @functools.wraps(find)
    def find_on_workers(config: Config) -> Iterator[CheckMessage]:
        if config.worker:
            yield from find(config)

    return find_on_workers


@contextmanager
def without_endpoint() -> Iterator[None]:
    """Run no check of the dispatcher's URL: beanstalk_worker and Lambda serve none."""
    token = _serves.set(False)
    try:
        yield
    finally:
        _serves.reset(token)


def _check_of_the_url(find: Callable[[str, View], Iterator[CheckMessage]]) -> Check:
    """A check of the dispatcher's path and view, on workers that have a URL for it."""

    @_check_on_workers
    @functools.wraps(find)
    def find_if_routed(config: Config) -> Iterator[CheckMessage]:
        if _serves.get() and (dispatcher := _find_dispatcher()) is not None:
            yield from find(*dispatcher)

    return find_if_routed


def _find_dispatcher() -> tuple[str, View] | None:
    """The dispatcher's path and view; None if no URL leads to it."""
    return _path_and_view("beanstalk_dispatcher") if has_urls() else None


def _path_and_view(url_name: str) -> tuple[str, View] | None:
    try:
        path = reverse(url_name)
        return path, resolve(path).func
    except (NoReverseMatch, Resolver404):
        return None


def has_urls() -> bool:
    """Whether the settings name a root urls.py, which only a web server needs."""
    return bool(getattr(settings, "ROOT_URLCONF", None))


def _backend_and_entry(alias: str | None) -> tuple[str, Mapping[str, Any]]:
    """The name of the backend, and the cache's entry in CACHES. Both are empty without one."""
    cache = settings.CACHES.get(alias or "", {})
    return cache.get("BACKEND", ""), cache


def _why_not_shared(backend: str) -> str | None:
    """Why processes cannot share a cache of this backend."""
    if not backend:
        return f"is not in CACHES; known: {listed(settings.CACHES)}"
    if backend.endswith(_UNSHARED_CACHES):
        return f"is a {backend.rpartition('.')[2]}, which the worker processes do not share"
    return None


def _task_classes(config: Config) -> Iterator[tuple[str, type[SafeTask]]]:
    """The names of the table that stand for a class."""
    for name in config.table:
        with suppress(UnknownFunction):  # E002 reports it
            listed_object = dispatch_table.resolve_early(name, config)
            if isinstance(listed_object, type):
                yield name, listed_object


def _max_entries(cache: Mapping[str, Any]) -> int:
    """As django.core.cache.backends.base.BaseCache reads it."""
    return int(cache.get("max_entries", cache.get("OPTIONS", {}).get("MAX_ENTRIES", 300)))


# --- errors ----------------------------------------------------------------------------------


@_check
def _table_entries(config: Config) -> Iterator[CheckMessage]:
    for name in config.table:
        try:
            dispatch_table.resolve_early(name, config)
        except UnknownFunction as exc:
            why = f": {exc.__cause__}" if exc.__cause__ else ""
            yield checks.Error(
                f"{TABLE.variable}: {name!r} cannot run. {exc}{why}",
                hint="Write name=package.module.function, or a SafeTask subclass.",
                id=f"{ID}.E002",
            )


@_check
def _safe_task(config: Config) -> Iterator[CheckMessage]:
    try:
        dispatch_table.safe_task_class(config)
    except ConfigurationError as exc:
        example = SAFE_TASK.default_text
        hint = f"Write the dotted path of a SafeTask subclass, like {example}."
        yield checks.Error(str(exc), hint=hint, id=f"{ID}.E003")


@_check_on_workers
def _small_lease_cache(config: Config) -> Iterator[CheckMessage]:
    alias, (backend, cache) = config.lease_cache, _backend_and_entry(config.lease_cache)
    if backend.endswith(".DatabaseCache") and _max_entries(cache) < MIN_LEASE_ENTRIES:
        yield checks.Error(
            f"{LEASE_CACHE.variable}: the cache {alias!r} keeps "
            f"{_max_entries(cache):,} entries and deletes the others. A task whose entry is "
            "deleted can run again.",
            hint=f"CACHES = {{{alias!r}: {{..., 'OPTIONS': {{'MAX_ENTRIES': 10_000_000}}}}}}",
            id=f"{ID}.E004",
        )


@_check_on_workers
def _unlisted_periodic_tasks(config: Config) -> Iterator[CheckMessage]:
    for name in config.periodic_tasks:
        if not dispatch_table.is_listed(name, config):
            yield checks.Error(
                f"{PERIODIC_TASKS.variable} lists {name!r}, which {TABLE.variable} does not.",
                hint="Add it to the table, or remove it here.",
                id=f"{ID}.E005",
            )


@_check_on_workers
def _unshared_lease_cache(config: Config) -> Iterator[CheckMessage]:
    alias, (backend, _) = config.lease_cache, _backend_and_entry(config.lease_cache)
    if alias is not None and (problem := _why_not_shared(backend)):
        yield checks.Error(
            f"{LEASE_CACHE.variable}: {alias!r} {problem}.",
            hint="Name a cache in Redis, Memcached or the database.",
            id=f"{ID}.E006",
        )


@_check
def _listed_classes(config: Config) -> Iterator[CheckMessage]:
    for name, task_class in _task_classes(config):
        for problem in problems_of(task_class):
            yield checks.Error(
                f"{name!r} would fail whenever it runs: {problem}.",
                hint=f"Correct the class {config.table[name]}.",
                id=f"{ID}.E007",
            )


@_check
def _check_outbox(config: Config) -> Iterator[CheckMessage]:
    if config.outbox != "off" and outbox.registered() is None:
        yield checks.Error(
            f"{OUTBOX.variable} is {config.outbox}, but {outbox.APP!r} is not in INSTALLED_APPS.",
            hint="Add it to INSTALLED_APPS, and run 'manage.py migrate'.",
            id=f"{ID}.E008",
        )


@_check
def _outbox_databases(config: Config) -> Iterator[CheckMessage]:
    unknown = [name for name in config.outbox_databases if name not in settings.DATABASES]
    if config.outbox != "off" and unknown:
        yield checks.Error(
            f"{OUTBOX_DATABASES.variable} lists {listed(unknown)}, which DATABASES "
            f"does not; known: {listed(settings.DATABASES)}.",
            hint="Name aliases of DATABASES.",
            id=f"{ID}.E009",
        )


@_check
def _check_rooms(config: Config) -> Iterator[CheckMessage]:
    for problem in conf.import_rooms():
        yield checks.Error(
            f"{problem}.", hint="Install what it needs, or unset the variable.", id=f"{ID}.E010"
        )


@_check
def _listed_tasks(config: Config) -> Iterator[CheckMessage]:
    for source in dispatch_table.task_sources():
        for problem in source.problems(config):
            yield checks.Error(
                f"{TASKS.variable}: {problem}.",
                hint="List modules, such as shop.tasks, or the dotted paths of tasks.",
                id=f"{ID}.E011",
            )


@_check
def _check_results(config: Config) -> Iterator[CheckMessage]:
    alias, variable = config.results, RESULTS.variable
    if alias == "db":
        if not apps.is_installed(RESULTS_APP):
            yield checks.Error(
                f"{variable} is db, but the table of results is not installed.",
                hint=f"Add {RESULTS_APP!r} to INSTALLED_APPS, and run 'manage.py migrate'.",
                id=f"{ID}.E012",
            )
    elif alias is not None and not config.execute_synchronously:
        backend, _ = _backend_and_entry(alias)
        if problem := _why_not_shared(backend):
            yield checks.Error(
                f"{variable}: {alias!r} {problem}.",
                hint="Name a cache in Redis, Memcached or the database, or db.",
                id=f"{ID}.E013",
            )


@_check_of_the_url
def _ssl_redirect(path: str, view: View) -> Iterator[CheckMessage]:
    prefix = path.lstrip("/")
    exempt = any(re.search(pattern, prefix) for pattern in settings.SECURE_REDIRECT_EXEMPT)
    if settings.SECURE_SSL_REDIRECT and _SECURITY in settings.MIDDLEWARE and not exempt:
        yield checks.Error(
            "SECURE_SSL_REDIRECT redirects the daemon's POST, which is plain HTTP. The daemon "
            "counts a redirect as a failure.",
            hint=f"SECURE_REDIRECT_EXEMPT = [r'^{prefix}'], or no SECURE_SSL_REDIRECT on workers.",
            id=f"{ID}.E014",
        )


@_check_of_the_url
def _www_redirect(path: str, view: View) -> Iterator[CheckMessage]:
    if settings.PREPEND_WWW and _COMMON in settings.MIDDLEWARE:
        yield checks.Error(
            "PREPEND_WWW redirects the daemon's POST to www.localhost. The daemon counts a "
            "redirect as a failure.",
            hint="Set PREPEND_WWW = False on the worker.",
            id=f"{ID}.E015",
        )


@_check_of_the_url
def _csrf_protection(path: str, view: View) -> Iterator[CheckMessage]:
    if not getattr(view, "csrf_exempt", False):
        yield checks.Error(
            "The dispatcher is no longer exempt from CSRF protection: Django answers 403 to the "
            "daemon's POST.",
            hint="Include beanstalk_dispatch.urls as it is, without a decorator around its view.",
            id=f"{ID}.E016",
        )


@_check_of_the_url
def _allowed_hosts(path: str, view: View) -> Iterator[CheckMessage]:
    allowed = settings.ALLOWED_HOSTS
    if (settings.DEBUG and not allowed) or _COMMON not in settings.MIDDLEWARE:
        return  # without that middleware, most projects never look at the host
    if not validate_host("localhost", allowed):
        yield checks.Error(
            "The daemon POSTs to the host 'localhost', which ALLOWED_HOSTS does not list: "
            "Django answers 400 and the message is not run.",
            hint="Add 'localhost' to ALLOWED_HOSTS on the worker.",
            id=f"{ID}.E017",
        )


@_check_on_workers
def _empty_table(config: Config) -> Iterator[CheckMessage]:
    if not (config.table or config.tasks):
        variable = TABLE.variable
        yield checks.Error(
            f"This is a worker, but {variable} is empty: every message fails.",
            hint=f"eb setenv '{variable}=name=package.module.function'",
            id=f"{ID}.E018",
        )


@_check
def _both_distributions(config: Config) -> Iterator[CheckMessage]:
    with suppress(PackageNotFoundError):
        yield checks.Error(
            f"beanstalk-dispatch {version('beanstalk-dispatch')} is installed beside "
            "django-beanstalk-dispatch. The files of both are in one package, beanstalk_dispatch.",
            hint="pip uninstall beanstalk-dispatch; "
            "pip install --force-reinstall django-beanstalk-dispatch",
            id=f"{ID}.E019",
        )


# --- warnings --------------------------------------------------------------------------------


@_check_of_the_url
def _login_middleware(path: str, view: View) -> Iterator[CheckMessage]:
    for name in settings.MIDDLEWARE:
        exempt = name == _LOGIN and not getattr(view, "login_required", True)
        if re.search(r"login_?required", name, re.IGNORECASE) and not exempt:
            yield checks.Warning(
                f"{name} may redirect the daemon's POST to a login page. The daemon counts a "
                "redirect as a failure.",
                hint="Exempt the dispatcher's path in that middleware, or use Django's own.",
                id=f"{ID}.W003",
            )


@_check_of_the_url
def _translated_url(path: str, view: View) -> Iterator[CheckMessage]:
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


@_check
def _secrets_in_settings(config: Config) -> Iterator[CheckMessage]:
    for field in ("sqs_key", "sqs_secret", "sqs_token", "signing_keys", "backlog_token"):
        if config.sources[field] != "settings":
            continue
        value = getattr(config, field)
        keys = {value} if isinstance(value, str) else set(value)
        if not all(map(conf.is_in_environment, keys)):
            variable = SETTINGS[field].variable
            yield checks.Warning(
                f"{variable} is in your Django settings as plain text.",
                hint=f"Remove it and set the environment property {variable}, or for SQS use the "
                "instance profile.",
                id=f"{ID}.W006",
            )


@_check_on_workers
def _missing_signing_keys(config: Config) -> Iterator[CheckMessage]:
    if not config.signing_keys:
        yield checks.Warning(
            f"{SIGNING_KEYS.variable} is not set: {UNSIGNED}.",
            hint=SIGN_MESSAGES,
            id=f"{ID}.W007",
        )


@_check
def _unknown_variables(config: Config) -> Iterator[CheckMessage]:
    for name, closest in conf.unknown_variables().items():
        known = listed([setting.variable for setting in SETTINGS.values()], limit=len(SETTINGS))
        yield checks.Warning(
            f"{name} is set, but beanstalk_dispatch has no variable of that name.",
            hint=f"Did you mean {closest}?"
            if closest
            else f"Remove it. The variables are: {known}",
            id=f"{ID}.W008",
        )


@_check_of_the_url
def _upload_limit(path: str, view: View) -> Iterator[CheckMessage]:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if limit is not None and limit < MAX_MESSAGE_BYTES:
        yield checks.Warning(
            f"DATA_UPLOAD_MAX_MEMORY_SIZE is {limit:,} bytes, but a message may have "
            f"{MAX_MESSAGE_BYTES:,}. Django answers 400 to a larger one.",
            hint=f"Set it to {MAX_MESSAGE_BYTES} or more on the worker.",
            id=f"{ID}.W010",
        )


@_check_on_workers
def _cache_without_timeout(config: Config) -> Iterator[CheckMessage]:
    for field in ("lease_cache", "results"):
        alias = getattr(config, field)
        backend, cache = _backend_and_entry(alias)
        if not backend.endswith(".RedisCache") or "socket_timeout" in cache.get("OPTIONS", {}):
            continue
        yield checks.Warning(
            f"{SETTINGS[field].variable}: the cache {alias!r} has no socket_timeout. A "
            "Redis that hangs would hang every thread of the worker.",
            hint=f"CACHES = {{{alias!r}: {{..., 'OPTIONS': {{'socket_timeout': 5}}}}}}",
            id=f"{ID}.W012",
        )


@_check_on_workers
def _missing_url(config: Config) -> Iterator[CheckMessage]:
    if _serves.get() and has_urls() and _find_dispatcher() is None:
        yield checks.Warning(
            "No URL leads to the dispatcher: Django answers 404 to the daemon's POST.",
            hint="Add path('beanstalk_dispatch/', include('beanstalk_dispatch.urls')) to your "
            "root urls.py, unless manage.py beanstalk_worker is all that runs here.",
            id=f"{ID}.W014",
        )


@_check
def _contrib_variables(config: Config) -> Iterator[CheckMessage]:
    for group in conf.registered_groups():
        if group is not conf.CORE:  # whose problems are E001
            for problem in conf.values_of(group).problems:
                yield checks.Warning(
                    f"{problem}.",
                    hint="Correct the variable. Until then it counts as not set.",
                    id=f"{ID}.W015",
                )


@_check
def _time_limit_of_none(config: Config) -> Iterator[CheckMessage]:
    for name, task_class in _task_classes(config):
        if (
            dispatch_table.defines(task_class, "timeout_timedelta")
            and task_class.timeout_timedelta is None
        ):
            yield checks.Warning(
                f"{name!r} sets timeout_timedelta to None, which does not mean 'no limit': the "
                f"task has the limit of {TASK_TIMEOUT.variable}.",
                hint="Write a timedelta of at most 12 hours, or remove the line.",
                id=f"{ID}.W016",
            )


@_check_on_workers
def _no_time_limits(config: Config) -> Iterator[CheckMessage]:
    if library := patched_by():
        yield checks.Warning(
            f"{library} has replaced threads: no time limit interrupts a task in this process.",
            hint="Run gunicorn with --worker-class gthread, or use beanstalk_worker.",
            id=f"{ID}.W018",
        )


@_check
def _check_backlog(config: Config) -> Iterator[CheckMessage]:
    if config.backlog_token is None or not _serves.get():
        return
    variable = BACKLOG_TOKEN.variable
    if not queue_names(config):
        queues = QUEUES.variable
        problem = f"{queues} names no queue that a worker reads, so the answer is 503"
        hint = f"Set {queues} on this process, too."
    elif has_urls() and _path_and_view("beanstalk_backlog") is None:
        problem = "no URL leads to the backlog"
        hint = "Include beanstalk_dispatch.urls in your root urls.py as it is."
    else:
        return
    yield checks.Warning(f"{variable} is set, but {problem}.", hint=hint, id=f"{ID}.W020")
