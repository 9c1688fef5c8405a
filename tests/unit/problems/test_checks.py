from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.apps import apps as django_apps
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.decorators import login_required
from django.core import mail
from django.core.cache.backends.db import DatabaseCache
from django.core.checks import CheckMessage, run_checks
from django.core.checks.registry import registry
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path
from django.views.decorators.csrf import csrf_protect

from beanstalk_dispatch import conf, views
from beanstalk_dispatch.conf import SETTINGS, Config
from beanstalk_dispatch.conf.variables import BACKLOG_TOKEN, SIGNING_KEYS
from beanstalk_dispatch.contrib.tasks.library import ImmediateBackend
from beanstalk_dispatch.deploying import overview
from beanstalk_dispatch.problems import checks
from beanstalk_dispatch.problems.checks import installation
from beanstalk_dispatch.problems.checks.endpoint import without_endpoint
from beanstalk_dispatch.problems.checks.registry import CHECKS
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.scheduling import outbox
from tests import django_tasks, jobs, urls
from tests.conftest import TABLE, Environment

KEY = "0123456789abcdef"
DEFAULTS: dict[str, Any] = {"WORKER": True, "DISPATCH_TABLE": TABLE, "DISPATCH_SIGNING_KEYS": KEY}


def sdk(*, is_active: bool) -> SimpleNamespace:
    """Return Sentry's SDK, as far as the checks look at it."""
    client = SimpleNamespace(is_active=lambda: is_active)
    return SimpleNamespace(get_client=lambda: client)


def found() -> list[CheckMessage]:
    return checks.check()


def ids() -> list[str | None]:
    return [message.id for message in found()]


def test_a_worker_set_up_well_has_nothing_to_report(env: Environment) -> None:
    env(**DEFAULTS)
    assert ids() == []


def test_a_web_machine_without_any_variable_has_nothing_to_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ids() == []
    monkeypatch.setattr(Config, "is_set", False)
    assert ids() == []


def test_rooms_are_imported_before_their_tasks_are_looked_at(env: Environment) -> None:
    """Also in a command that imports listed_tasks before any check runs."""
    env(**DEFAULTS)
    assert ids() == []
    modules = [check.__module__.rpartition(".")[2] for check in CHECKS]
    assert modules.index("contrib_rooms") < modules.index("listed_tasks")


def test_the_checks_are_registered(env: Environment) -> None:
    env(WORKER="Ture")
    messages = [m for m in run_checks() if (m.id or "").startswith("beanstalk_dispatch.")]
    assert [message.id for message in messages] == ["beanstalk_dispatch.E001"]
    assert "'Ture' is not a boolean" in messages[0].msg


class WithAttributes(SafeTask):
    timeout = 30
    isolation = "thread"

    def run(self) -> None:
        """A task."""


def test_keywords_of_a_class_have_no_effect_as_attributes(env: Environment) -> None:
    env(**DEFAULTS | {"DISPATCH_TABLE": f"a={__name__}.WithAttributes"})
    [finding] = found()
    assert finding.id == "beanstalk_dispatch.W030"
    assert finding.hint == (
        "Write class WithAttributes(SafeTask, timeout=…), or set 'timeout_timedelta'."
    )


def test_what_runs_in_the_calling_process_is_not_sent(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(**DEFAULTS | {"DISPATCH_EXECUTE_SYNCHRONOUSLY": True})
    assert ids() == []  # in a test
    monkeypatch.delattr(mail, "outbox")
    assert ids() == ["beanstalk_dispatch.W031"]


def test_a_file_of_variables_that_nothing_reads(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env(**DEFAULTS)
    content = (
        "\ufeffBEANSTALK_WORKR=1\nexport BEANSTALK_WORKER=1\nBEANSTALK_DISPATCH_QUEUES=a=b\nOTHER=1"
    )
    Path(".env").write_text(content, "utf-8")
    [finding] = found()
    assert finding.id == "beanstalk_dispatch.W032"
    assert "sets BEANSTALK_DISPATCH_QUEUES, BEANSTALK_WORKR, which" in finding.msg
    for harmless in (b"\xff", b"BEANSTALK_WORKER=True"):
        Path(".env").write_bytes(harmless)
        assert ids() == []


@pytest.mark.parametrize("name", ["OutboxConfig", "ResultsConfig", "WorkbenchConfig"])
def test_an_app_of_contrib_needs_that_of_the_core(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"beanstalk_dispatch.contrib.{name.removesuffix('Config').lower()}"
    monkeypatch.setattr(registry, "registered_checks", set())
    getattr(import_module(f"{package}.apps"), name)(package, import_module(package)).ready()
    assert run_checks(tags=["beanstalk_dispatch"]) == []
    monkeypatch.setattr(django_apps, "is_installed", lambda name: name != "beanstalk_dispatch")
    [missing] = run_checks(tags=["beanstalk_dispatch"])
    assert missing.hint == "Add 'beanstalk_dispatch' to INSTALLED_APPS."


@pytest.mark.parametrize(("worker", "synchronously"), [(True, False), (False, False), (True, True)])
def test_a_listed_task_of_another_backend_is_not_sent(
    env: Environment, worker: bool, synchronously: bool
) -> None:
    env(**DEFAULTS | {"DISPATCH_TASKS": django_tasks.__name__, "WORKER": worker})
    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=synchronously)
    immediate = {"default": {"BACKEND": f"{ImmediateBackend.__module__}.ImmediateBackend"}}
    with override_settings(TASKS=immediate):
        messages = [each for each in found() if each.id == "beanstalk_dispatch.W029"]
    assert bool(messages) is (worker and not synchronously)
    for each in messages:
        assert "is a task of ImmediateBackend, so enqueue() does not send it to SQS" in each.msg


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DISPATCH_TABLE": "a=tests.nowhere.f"}, ["E002"]),
        ({"DISPATCH_TABLE": "a=tests.jobs.NotATask b=tests.jobs.fail"}, ["E002"]),
        ({"DISPATCH_TABLE": "a=tests.jobs.NeedsArgument"}, ["E007", "E007"]),
        ({"DISPATCH_TABLE": "a=tests.jobs.NoLimit"}, ["W016"]),
        ({"DISPATCH_SAFE_TASK": "tests.nowhere.Task"}, ["E003"]),
        ({"DISPATCH_PERIODIC_TASKS": "record unlisted"}, ["E005"]),
        ({"DISPATCH_SIGNING_KEYS": None}, ["W007"]),
        ({"DISPATCH_SIGNING_KEYS": f"{KEY} {SIGNING_KEYS.example}"}, ["E022"]),
        ({"DISPATCH_BACKLOG_TOKEN": BACKLOG_TOKEN.example, "DISPATCH_QUEUES": "q=q"}, ["E022"]),
        ({"DISPATCH_TRUSTED_PEERS": "0.0.0.0/0", "DISPATCH_SIGNING_KEYS": None}, ["E021", "W007"]),
        (
            {"DISPATCH_TRUSTED_PEERS": "10.0.0.0/8 ::/0", "DISPATCH_SIGNING_KEYS": None},
            ["E021", "W007"],
        ),
        (
            {"DISPATCH_TRUSTED_PEERS": "0.0.0.0/1 128.0.0.0/1", "DISPATCH_SIGNING_KEYS": None},
            ["E021", "W007"],
        ),
        (
            {"DISPATCH_TRUSTED_PEERS": "10.0.0.0/8 172.16.0.0/12", "DISPATCH_SIGNING_KEYS": None},
            ["W007"],
        ),
        ({"DISPATCH_TRUSTED_PEERS": "0.0.0.0/0"}, []),
        ({"DISPATCH_TABEL": "x"}, ["W008"]),
        ({"DISPATCH_SIGNING_KEYS": f"{KEY}{KEY},{KEY[1:]}"}, ["E001"]),
        ({"DISPATCH_TABLE": None}, ["E018"]),
        ({"DISPATCH_TABLE": None, "DISPATCH_TASKS": "tests.django_tasks"}, []),
        (
            {
                "DISPATCH_TASKS": "tests.django_tasks",
                "DISPATCH_PERIODIC_TASKS": "tests.django_tasks.add record",
            },
            [],
        ),
        ({"DISPATCH_TASKS": "tests.batches tests.nowhere"}, ["E011", "E011"]),
        ({"DISPATCH_RESULTS": "nowhere"}, ["E013"]),
        ({"DISPATCH_RESULTS": "default"}, ["E013"]),
        ({"DISPATCH_RESULTS": "default", "DISPATCH_EXECUTE_SYNCHRONOUSLY": True}, []),
        ({"DISPATCH_RESULTS": "db"}, []),
    ],
)
def test_variables_that_break_a_worker(
    env: Environment, variables: dict[str, str], expected: list[str]
) -> None:
    env(**(DEFAULTS | variables))
    assert ids() == [f"beanstalk_dispatch.{each}" for each in expected]
    assert all(message.hint for message in found())


def test_a_room_that_cannot_be_imported_is_an_error(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "beanstalk_dispatch.contrib.results", None)
    env(**(DEFAULTS | {"DISPATCH_RESULTS": "default"}))
    message = found()[0]
    assert message.id == "beanstalk_dispatch.E010"
    assert message.msg.startswith("BEANSTALK_DISPATCH_RESULTS: import of beanstalk_dispatch.contr")


def test_what_is_wrong_with_a_listed_class_is_said_in_words(env: Environment) -> None:
    env(**(DEFAULTS | {"DISPATCH_TABLE": "a=tests.jobs.NeedsArgument b=tests.jobs.NoLimit"}))
    first, second, third = [message.msg for message in found()]
    assert first == (
        "'a' does not fit SafeTask: __init__() needs the argument 'needed'; a worker "
        "makes the task without any, so give it a default."
    )
    assert second == (
        "'a' does not fit SafeTask: it has no run() of its own; write 'def run(self, …)' "
        "with the task's work."
    )
    assert third == (
        "'b' sets timeout_timedelta to None, which does not mean 'no limit': the task has the "
        "limit of BEANSTALK_DISPATCH_TASK_TIMEOUT."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("BEANSTALK_WORKR", "Did you mean BEANSTALK_WORKER?"),
        ("BEANSTALK_DISPATCH_WORKER", "Did you mean BEANSTALK_WORKER?"),
        ("BEANSTALK_DISPATCH_TABEL", "Did you mean BEANSTALK_DISPATCH_TABLE?"),
        ("BEANSTALK_DISPATCH_QUEUE", "Did you mean BEANSTALK_DISPATCH_QUEUES?"),
    ],
)
def test_a_misspelt_variable_is_reported_with_the_one_that_was_meant(
    env: Environment, name: str, hint: str
) -> None:
    env(**{name: "x"})
    (message,) = found()
    assert message.id == "beanstalk_dispatch.W008"
    assert message.msg == f"{name} is set, but beanstalk_dispatch has no variable of that name."
    assert message.hint == hint


@pytest.mark.parametrize("name", conf.removed.VARIABLES)
def test_a_removed_variable_is_reported_with_what_to_use(env: Environment, name: str) -> None:
    env(**{name: "1"})
    (message,) = found()
    assert message.id == "beanstalk_dispatch.W008"
    assert message.hint == f"Remove it. {conf.removed.VARIABLES[name]}"
    assert message.msg.endswith("has no variable of that name.")
    (warning,) = overview.warnings()
    assert warning == f"{message.msg} {conf.removed.VARIABLES[name]}"


@override_settings(MIDDLEWARE=list(conf.removed.MIDDLEWARE))
def test_a_removed_middleware_is_reported_with_what_to_use() -> None:
    (message,) = found()
    assert message.id == "beanstalk_dispatch.E020"
    assert message.hint == f"Remove it. {conf.removed.MIDDLEWARE[settings.MIDDLEWARE[0]]}"


def test_an_unknown_variable_that_is_close_to_none_is_reported_with_all(env: Environment) -> None:
    env(DISPATCH_XYZ="x")
    (message,) = found()
    assert message.hint is not None
    start, _, names = message.hint.partition(": ")
    assert start == "Remove it. The variables are"
    assert names.split(", ") == sorted(setting.variable for setting in SETTINGS.values())


def test_the_messages_are_in_the_order_of_their_ids(env: Environment) -> None:
    env(WORKER=True, DISPATCH_TABLE="a=tests.nowhere.f", DISPATCH_SAFE_TASK="tests.nowhere.Task",
        DISPATCH_PERIODIC_TASKS="b", DISPATCH_LEASE_CACHE="none", DISPATCH_TABEL="x")  # fmt: skip
    with override_settings(SECURE_SSL_REDIRECT=True, PREPEND_WWW=True, ALLOWED_HOSTS=["a"],
                           DATA_UPLOAD_MAX_MEMORY_SIZE=1):  # fmt: skip
        names = [name.removeprefix("beanstalk_dispatch.") for name in ids() if name]
    assert names == ["E002", "E003", "E005", "E006", "E014", "E015", "E017", "W007", "W008", "W010"]


def test_an_import_error_is_shown(env: Environment) -> None:
    env(**(DEFAULTS | {"DISPATCH_TABLE": "a=tests.nowhere.f"}))
    assert "No module named 'tests.nowhere'" in found()[0].msg


MIDDLEWARE = ["django.middleware.security.SecurityMiddleware",
              "django.middleware.common.CommonMiddleware"]  # fmt: skip
ROOT = "tests.unit.problems.test_checks"
urlpatterns: list[Any] = []


def cache(backend: str, **options: Any) -> dict[str, Any]:
    name = f"django.core.cache.backends.{backend}"
    return {"default": {"BACKEND": name, "LOCATION": "here", "OPTIONS": options}}


def their_cache(name: str) -> dict[str, Any]:
    return {"default": {"BACKEND": f"{__name__}.{name}"}}


class Renamed(DatabaseCache):
    """A cache of a project that adds as Django's does."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(location, {"OPTIONS": {"MAX_ENTRIES": 10_000_000}})


class ReadThenWrite(Renamed):
    """A cache that reads and then writes."""

    def add(self, *args: Any, **kwargs: Any) -> bool:
        raise NotImplementedError  # pragma: no cover - only looked at


def never(request: HttpRequest) -> HttpResponse:
    """A view without any exemption, which no test calls."""
    raise NotImplementedError  # pragma: no cover - only looked at


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ALLOWED_HOSTS": ["example.com"]}, ["E017"]),
        ({"ALLOWED_HOSTS": ["*"]}, []),
        ({"ALLOWED_HOSTS": ["example.com"], "MIDDLEWARE": []}, []),
        ({"ALLOWED_HOSTS": [], "DEBUG": True}, []),
        ({"ALLOWED_HOSTS": [], "DEBUG": False}, ["E017"]),
        ({"SECURE_SSL_REDIRECT": True}, ["E014"]),
        ({"SECURE_SSL_REDIRECT": True, "SECURE_REDIRECT_EXEMPT": [r"^beanstalk_dispatch/"]}, []),
        ({"SECURE_SSL_REDIRECT": True, "MIDDLEWARE": []}, []),
        ({"PREPEND_WWW": True}, ["E015"]),
        ({"MIDDLEWARE": ["django.contrib.auth.middleware.LoginRequiredMiddleware"]}, []),
        ({"MIDDLEWARE": ["theirs.LoginRequiredMiddleware"]}, ["W003"]),
        ({"USE_I18N": False}, []),
        ({"DATA_UPLOAD_MAX_MEMORY_SIZE": 1000}, ["W010"]),
        ({"DATA_UPLOAD_MAX_MEMORY_SIZE": None}, []),
        ({"BEANSTALK_DISPATCH_SQS_KEY": "AKIA-IN-SETTINGS",
          "BEANSTALK_DISPATCH_SQS_SECRET": "plain-text-secret"},
         ["W006", "W006"]),
        ({"BEANSTALK_DISPATCH_SIGNING_KEYS": [f"plain-text-secret{KEY}"]}, ["W006", "W028"]),
        ({"BEANSTALK_DISPATCH_BACKLOG_TOKEN": f"plain-text-secret{KEY}",
          "BEANSTALK_DISPATCH_QUEUES": "jobs=jobs"}, ["W006"]),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default", "CACHES": cache("locmem.LocMemCache")},
         ["E006"]),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default", "CACHES": cache("dummy.DummyCache")},
         ["E006"]),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "other", "CACHES": cache("db.DatabaseCache")},
         ["E006"]),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default", "CACHES": cache("db.DatabaseCache")},
         ["E004"]),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default",
          "CACHES": cache("db.DatabaseCache", MAX_ENTRIES=10_000_000)}, []),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default", "CACHES": cache("redis.RedisCache")},
         ["W012"]),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default",
          "CACHES": cache("redis.RedisCache", socket_timeout=5)}, []),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default",
          "CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache",
                                 "LOCATION": "redis://10.0.0.5/1?socket_timeout=5"}}}, []),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default",
          "CACHES": {"default": {"BACKEND": "django_redis.cache.RedisCache",
                                 "LOCATION": "redis://10.0.0.5/1",
                                 "OPTIONS": {"SOCKET_TIMEOUT": 5}}}}, []),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default",
          "CACHES": cache("memcached.PyMemcacheCache")}, []),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default",
          "CACHES": cache("memcached.PyLibMCCache")}, ["E023"]),
        ({"BEANSTALK_WORKER": "yes"}, []),
        ({"BEANSTALK_DISPATCH_TABLE": {"record": "tests.jobs.record"}}, ["W028"]),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default", "CACHES": their_cache("ReadThenWrite")},
         ["W022"]),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default", "CACHES": their_cache("Renamed")}, []),
        ({"BEANSTALK_DISPATCH_LEASE_CACHE": "default", "CACHES": their_cache("Nowhere")}, []),
        ({"BEANSTALK_DISPATCH_RESULTS": "default", "CACHES": cache("redis.RedisCache")}, ["W012"]),
        ({"BEANSTALK_DISPATCH_RESULTS": "db", "INSTALLED_APPS": ["beanstalk_dispatch"]}, ["E012"]),
    ],
)  # fmt: skip
def test_settings_that_break_a_worker(
    env: Environment, settings: dict[str, Any], expected: list[str]
) -> None:
    env(**DEFAULTS)
    with override_settings(**settings):
        assert ids() == [f"beanstalk_dispatch.{each}" for each in expected]
        assert "plain-text-secret" not in "".join(
            f"{message.msg}{message.hint}" for message in found()
        )


def test_a_key_that_settings_took_from_the_environment_is_not_plaintext(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SQS_SECRET", "hush")
    env(DISPATCH_SQS_KEY="AKIA")
    with override_settings(BEANSTALK_DISPATCH_SQS_SECRET="hush"):
        assert ids() == []


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (urls.urlpatterns, []),
        ([], ["W014"]),
        ([path("x/", csrf_protect(never), name="beanstalk_dispatcher")], ["E016"]),
        ([path("x/", login_required(views.dispatcher), name="beanstalk_dispatcher")], []),
        (i18n_patterns(path("x/", include("beanstalk_dispatch.urls"))), ["W005"]),
    ],
)
def test_urls_that_break_a_worker(
    env: Environment, monkeypatch: pytest.MonkeyPatch, patterns: list[Any], expected: list[str]
) -> None:
    env(**DEFAULTS)
    monkeypatch.setattr(f"{ROOT}.urlpatterns", patterns)
    with override_settings(ROOT_URLCONF=ROOT):
        assert ids() == [f"beanstalk_dispatch.{each}" for each in expected]


@pytest.mark.parametrize("is_worker", [False, True])
@pytest.mark.parametrize(
    ("queues", "patterns", "problems"),
    [
        ("jobs=jobs", urls.urlpatterns, []),
        (None, urls.urlpatterns, ["names no queue that a worker reads"]),
        ("jobs=jobs", [path("x/", views.dispatcher, name="beanstalk_dispatcher")],
         ["no URL leads to the backlog"]),
    ],
)  # fmt: skip
def test_a_token_for_a_backlog_that_nobody_can_read(
    env: Environment,
    monkeypatch: pytest.MonkeyPatch,
    is_worker: bool,
    queues: str | None,
    patterns: list[Any],
    problems: list[str],
) -> None:
    env(**DEFAULTS, DISPATCH_BACKLOG_TOKEN=KEY[::-1], DISPATCH_QUEUES=queues)
    env(WORKER=is_worker)
    monkeypatch.setattr(f"{ROOT}.urlpatterns", patterns)
    with override_settings(ROOT_URLCONF=ROOT):
        messages = found()
        assert [message.id for message in messages] == ["beanstalk_dispatch.W020"] * len(problems)
        assert all(problem in each.msg for problem, each in zip(problems, messages, strict=True))
        with without_endpoint():
            assert ids() == []
    with override_settings():
        del settings.ROOT_URLCONF
        assert ids() == ([] if queues else ["beanstalk_dispatch.W020"])


def test_settings_without_a_root_urlconf_need_no_url(env: Environment) -> None:
    """As of a project that only runs beanstalk_worker."""
    env(**DEFAULTS)
    with override_settings():
        del settings.ROOT_URLCONF
        assert ids() == []


def test_a_dispatcher_that_needs_a_login_is_found(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(**DEFAULTS)

    monkeypatch.setattr(
        f"{ROOT}.urlpatterns",
        [path("x/", never, name="beanstalk_dispatcher")],
    )
    middleware = ["django.contrib.auth.middleware.LoginRequiredMiddleware"]
    with override_settings(ROOT_URLCONF=ROOT, MIDDLEWARE=middleware):
        assert ids() == ["beanstalk_dispatch.E016", "beanstalk_dispatch.W003"]


# --- the outbox ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["always", "on-failure"])
def test_the_outbox_needs_its_app(
    env: Environment, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    env(DISPATCH_OUTBOX=mode)
    assert ids() == []
    monkeypatch.setattr(outbox, "_registered", None)
    assert ids() == ["beanstalk_dispatch.E008"]
    env(DISPATCH_OUTBOX="off")
    assert ids() == []


def test_the_databases_of_the_outbox_exist(env: Environment) -> None:
    env(DISPATCH_OUTBOX="always", DISPATCH_OUTBOX_DATABASES="default othr")
    (message,) = found()
    assert message.id == "beanstalk_dispatch.E009"
    assert "lists othr, which DATABASES does not; known: default, other." in message.msg
    env(DISPATCH_OUTBOX="off")
    assert ids() == []


# --- the process -----------------------------------------------------------------------------


def test_version_0_1_must_not_be_installed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ids() == []
    monkeypatch.setattr(installation, "_FILE_OF_0_1", tmp_path)
    (message,) = found()
    assert message.id == "beanstalk_dispatch.E019"
    assert message.msg.startswith("beanstalk-dispatch 0.1 is installed beside")


def test_a_worker_whose_threads_are_greenlets_has_no_time_limits(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(**DEFAULTS)
    monkeypatch.setattr(installation, "patched_by", lambda: "gevent")
    (message,) = found()
    assert message.id == "beanstalk_dispatch.W018"
    assert message.msg.startswith("gevent has replaced threads")


@pytest.mark.parametrize(
    ("modules", "variables", "is_reported"),
    [
        ({}, {}, True),
        ({"sentry_sdk": sdk(is_active=False)}, {}, True),
        ({"sentry_sdk": sdk(is_active=True)}, {}, False),
        ({"beanstalk_dispatch.contrib.sentry": ModuleType("sentry")}, {}, False),
        ({}, {"SENTRY_DSN": ""}, False),
        ({}, {"WORKER": None}, False),
    ],
)
def test_a_dsn_that_nothing_uses(
    env: Environment, monkeypatch: pytest.MonkeyPatch, modules: dict[str, Any],
    variables: dict[str, Any], is_reported: bool,
) -> None:  # fmt: skip
    env(**({"WORKER": True, "DISPATCH_TABLE": TABLE, "SENTRY_DSN": "http://x@y/1"} | variables))
    found()  # it imports the modules of the checks, in their order
    # Not sys.modules itself: other tests may have imported the SDK, which cannot be imported twice.
    listed_tasks: Any = sys.modules["beanstalk_dispatch.problems.checks.listed_tasks"]
    monkeypatch.setattr(listed_tasks, "sys", SimpleNamespace(modules=modules))
    assert ("beanstalk_dispatch.W023" in ids()) is is_reported


@pytest.mark.parametrize(
    ("variables", "is_lambda", "task", "message"),
    [
        ({"DISPATCH_ISOLATION": "process", "DISPATCH_EXECUTE_SYNCHRONOUSLY": True}, False, None,
         "BEANSTALK_DISPATCH_ISOLATION=process has no effect: tasks run in threads here"),
        ({"DISPATCH_ISOLATION": "process", "DISPATCH_EXECUTE_SYNCHRONOUSLY": True}, False, None,
         "because BEANSTALK_DISPATCH_EXECUTE_SYNCHRONOUSLY runs them in the calling process."),
        ({"DISPATCH_EXECUTE_SYNCHRONOUSLY": True}, False, "fresh", "large=fresh has no effect: "),
        ({"DISPATCH_ISOLATION": "fresh"}, True, None, "because AWS Lambda runs one task"),
        ({"DISPATCH_POLICIES": "large.isolation=fresh"}, True, None, "large=fresh has no effect: "),
        ({"DISPATCH_ISOLATION": "fresh", "WORKER": None}, True, None, None),
        ({"DISPATCH_ISOLATION": "fresh"}, False, "process", None),
        ({}, True, "thread", None),
    ],
)  # fmt: skip
def test_isolation_without_effect(
    env: Environment,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, Any],
    is_lambda: bool,
    task: str | None,
    message: str | None,
) -> None:
    if is_lambda:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop-worker")
    monkeypatch.setattr(jobs.Recorder, "isolation", task)
    env(**DEFAULTS | {"DISPATCH_TABLE": "large=tests.jobs.Recorder"} | variables)
    messages = found()
    assert [each.id for each in messages] == ["beanstalk_dispatch.W024"] * bool(message)
    assert all(message in each.msg for each in messages if message)


@pytest.mark.parametrize(
    ("is_on", "worker", "is_reported"),
    [(True, True, True), (False, True, False), (True, None, False), (None, True, False)],
)
def test_an_instrumentation_that_leaves_spans_behind(
    env: Environment, monkeypatch: pytest.MonkeyPatch, is_on: bool | None, worker: bool | None,
    is_reported: bool,
) -> None:  # fmt: skip
    library: Any = ModuleType("boto3sqs")
    library.Boto3SQSInstrumentor = lambda: SimpleNamespace(is_instrumented_by_opentelemetry=is_on)
    if is_on is not None:
        monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.boto3sqs", library)
    env(WORKER=worker, DISPATCH_TABLE=TABLE)
    assert ("beanstalk_dispatch.W026" in ids()) is is_reported


def test_the_isolation_of_a_task_that_is_wrong_in_another_way_is_not_asked_for(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "shop-worker")
    env(**DEFAULTS | {"DISPATCH_TABLE": "gone=tests.jobs.gone number=tests.jobs.calls"})
    assert ids() == ["beanstalk_dispatch.E002"] * 2


def test_a_process_without_an_endpoint_needs_no_url(env: Environment) -> None:
    env(**DEFAULTS)
    with override_settings(ALLOWED_HOSTS=["a"], ROOT_URLCONF=ROOT), without_endpoint():
        assert ids() == []
    with override_settings(ALLOWED_HOSTS=["a"]):
        assert ids() == ["beanstalk_dispatch.E017"]
