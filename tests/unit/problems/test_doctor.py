from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import ERROR, INFO, WARNING, CheckMessage, register
from django.core.checks import Warning as CheckWarning
from django.core.checks.registry import registry
from django.test import override_settings

from beanstalk_dispatch.conf import CORE, SettingsGroup
from beanstalk_dispatch.contrib.sentry.variables import SENTRY
from beanstalk_dispatch.problems import doctor
from beanstalk_dispatch.problems.findings import lines
from tests.conftest import TABLE, Environment
from tests.services import ROOT, valkey

# A request may use connections that an earlier test has opened.
pytestmark = pytest.mark.django_db(databases="__all__")

KEY = "0123456789abcdef"
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
CRON = """\
version: 1
cron:
  - name: {name}
    url: {url}
    schedule: "{schedule}"
"""
RIGHT = {
    "name": "record", "url": "/beanstalk_dispatch/dispatcher", "schedule": "*/5 * * * *",
}  # fmt: skip
WORKER: dict[str, Any] = {"WORKER": True, "DISPATCH_TABLE": TABLE, "DISPATCH_SIGNING_KEYS": KEY}


class OwnCache(LocMemCache):
    """A project's own class, whose name does not say that each process has its own entries."""


class Forgetful(BaseCache):
    """A cache that takes everything and keeps nothing."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def add(self, *args: Any, **kwargs: Any) -> bool:
        return True

    def get(self, *args: Any, **kwargs: Any) -> None:
        return None

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        return False


class Broken(Forgetful):
    def add(self, *args: Any, **kwargs: Any) -> bool:
        raise ConnectionError("refused")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: Environment) -> Path:
    """A project with the daemon's options, and nothing wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("beanstalk_dispatch.conf.registry._groups", [CORE, SENTRY])
    (tmp_path / ".ebextensions").mkdir()
    (tmp_path / ".ebextensions" / "worker.config").write_text(
        "  aws:elasticbeanstalk:sqsd:\n    HttpPath: /beanstalk_dispatch/dispatcher\n"
    )
    env(**WORKER)
    return tmp_path


def by_topic(findings: Iterator[CheckMessage]) -> dict[str, CheckMessage]:
    return {
        finding.obj or str(finding.id).removeprefix("beanstalk_dispatch."): finding
        for finding in findings
    }


def examine(**options: Any) -> dict[str, CheckMessage]:
    return by_topic(doctor.examine(**options))


def test_a_project_that_is_set_up_well_has_nothing_but_ok() -> None:
    found = examine()
    assert list(found) == ["configuration", "system checks", "SENTRY_*", "tasks", "daemon's POST"]
    assert {finding.level for finding in found.values()} == {INFO}
    assert "worker=True" in found["configuration"].msg
    assert found["tasks"].msg == "9 can run; the longest time limit is 120 s"


def test_files_whose_daemon_reads_the_dead_letter_queue_are_an_error(
    folder: Path, env: Environment
) -> None:
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail"
    with (folder / ".ebextensions" / "worker.config").open("a") as file:
        file.write(f"    WorkerQueueURL: {url}\n")
    env(DISPATCH_QUEUES="mail=shop-mail", DISPATCH_DEAD_LETTER_QUEUE="mail")
    assert examine()["queues"].id == "beanstalk_dispatch.E123"
    env(DISPATCH_QUEUES="mail=shop-mail dead=dead", DISPATCH_DEAD_LETTER_QUEUE="dead")
    assert "queues" not in examine()


def test_a_wrong_configuration_is_all_that_is_said(env: Environment) -> None:
    env(WORKER="Ture")
    (finding,) = doctor.examine()
    assert finding.level == ERROR
    assert "'Ture' is not a boolean" in finding.msg
    assert "beanstalk_config" in str(finding.hint)


def test_the_checks_are_findings_with_their_ids(env: Environment) -> None:
    env(DISPATCH_TABLE="a=tests.nowhere.f", DISPATCH_SIGNING_KEYS=None)
    found = examine()
    assert found["E002"].level == ERROR
    assert found["W007"].level == WARNING
    assert found["W007"].hint
    assert "tasks" not in found
    with override_settings(SILENCED_SYSTEM_CHECKS=["beanstalk_dispatch.W007"]):
        assert "W007" not in examine()


def test_the_post_takes_the_place_of_checks_that_guess() -> None:
    exempt = [r"^beanstalk_dispatch/dispatcher$"]
    with override_settings(SECURE_SSL_REDIRECT=True, SECURE_REDIRECT_EXEMPT=exempt):
        found = examine()
    assert found["daemon's POST"].level == INFO
    assert "E014" not in found
    with override_settings(ROOT_URLCONF=None):
        found = examine()
    assert "daemon's POST" not in found


def test_a_post_that_is_refused_leaves_the_other_reasons_to_the_checks() -> None:
    with override_settings(SECURE_SSL_REDIRECT=True, PREPEND_WWW=True, ALLOWED_HOSTS=["shop.com"]):
        found = [str(each.id).rpartition(".")[2] for each in doctor.examine()]
    assert sorted(each for each in found if each.startswith("E")) == ["E014", "E015", "E017"]


def test_a_missing_url_is_said_once() -> None:
    with override_settings(ROOT_URLCONF="tests.unit.problems.test_checks"):
        found = [str(each.id).rpartition(".")[2] for each in doctor.examine()]
    assert "E119" in found
    assert "W014" not in found


def test_other_settings_of_the_server_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(ROOT / "manage.py"), raising=False)
    with override_settings(
        SETTINGS_MODULE="example_settings.settings", WSGI_APPLICATION="tests.wsgi.application"
    ):
        found = examine()
    assert found["configuration"].msg.endswith(" settings=example_settings.settings")
    assert found["settings"].id == "beanstalk_dispatch.W131"
    assert found["settings"].msg == (
        "manage.py uses example_settings.settings, but tests.wsgi starts the server with "
        "tests.settings"
    )
    assert str(found["settings"].hint).startswith("DJANGO_SETTINGS_MODULE=tests.settings python")


def test_periodic_tasks_of_another_environment_are_no_problem(
    env: Environment, folder: Path
) -> None:
    (folder / "cron.yaml").write_text(CRON.format(**RIGHT))
    assert examine()["cron.yaml"].id == "beanstalk_dispatch.E107"
    env(DISPATCH_PERIODIC_TASKS="off")
    assert examine()["cron.yaml"].msg == (
        "another environment runs it: BEANSTALK_DISPATCH_PERIODIC_TASKS is off"
    )


def test_a_check_of_another_room_needs_no_id_and_no_hint() -> None:
    def check(**options: Any) -> list[CheckWarning]:
        return [CheckWarning("something")]

    register(check, "beanstalk_dispatch")
    try:
        finding = examine()["None"]
    finally:
        registry.registered_checks.discard(check)
    assert (finding.msg, finding.hint) == ("something", None)
    assert list(lines([finding])) == [f"warning  {'':<4} something"]


def test_urls_that_cannot_be_imported_are_findings_and_no_crash() -> None:
    with override_settings(ROOT_URLCONF="tests.nowhere"):
        found = examine()
    words = "could not be examined: ModuleNotFoundError: No module named 'tests.nowhere'"
    assert found["system checks"].msg == words
    assert found["daemon's POST"].msg == words
    assert found["tasks"].level == INFO


def test_the_variables_of_a_contrib_room_are_listed(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(SENTRY_DSN="https://hush@o1.ingest.sentry.io/1")
    assert examine()["SENTRY_*"].msg == "variables that are set: SENTRY_DSN"
    monkeypatch.setattr("beanstalk_dispatch.conf.registry._groups", [CORE, SettingsGroup(
        prefix="ROOM_", settings=())])  # fmt: skip
    assert examine()["ROOM_*"].msg == "variables that are set: none"


# --- the daemon's path -----------------------------------------------------------------------


def test_the_path_of_the_bundle_is_posted_to(folder: Path) -> None:
    (folder / ".ebextensions" / "worker.config").write_text(
        "  aws:elasticbeanstalk:sqsd:\n    HttpPath: /\n"
    )
    assert "HttpPath is '/'" in examine()["daemon's POST"].msg
    assert examine(path="/beanstalk_dispatch/")["daemon's POST"].level == INFO


def test_a_path_that_nothing_sets_is_a_warning(folder: Path) -> None:
    (folder / ".ebextensions" / "worker.config").unlink()
    found = examine()
    assert found["daemon's POST"].level == INFO
    assert found["HttpPath"].level == WARNING
    assert "--http-path /beanstalk_dispatch/dispatcher" in str(found["HttpPath"].hint)


# --- cron.yaml -------------------------------------------------------------------------------


def test_a_file_that_is_named_and_missing_is_a_failure() -> None:
    finding = examine(cron_file=Path("missing.yaml"))["cron.yaml"]
    assert (finding.level, finding.msg) == (ERROR, "there is no missing.yaml")


def test_periodic_tasks_that_can_run_are_ok(folder: Path, env: Environment) -> None:
    env(DISPATCH_PERIODIC_TASKS="record")
    assert "there is no cron.yaml" in examine()["cron.yaml"].msg
    (folder / "cron.yaml").write_text(CRON.format_map(RIGHT))
    assert examine()["cron.yaml"].msg == "1 periodic tasks can run"
    with override_settings(ROOT_URLCONF=None):
        assert examine()["cron.yaml"].level == INFO


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"name": "unlisted"}, "'unlisted' is not in BEANSTALK_DISPATCH_TABLE", "unlisted=package"),
        ({"name": "fail"}, "'fail' is not in BEANSTALK_DISPATCH_PERIODIC_TASKS", "=record fail'"),
        ({"url": "/"}, "the url '/' is not the dispatcher", "/beanstalk_dispatch/dispatcher"),
        ({"url": "/beanstalk_dispatch/dispatcher?x=1"}, "is not the dispatcher", "url: "),
        ({"url": "beanstalk_dispatch"}, "is not a path; write one like", "correct the entry"),
        ({"schedule": "0 4 * * * *"}, "does not have the five fields", "correct the entry"),
        ({"schedule": "rate(1 hour)"}, "does not have the five fields", "correct the entry"),
        ({"schedule": "61 * * * *"}, "'61 * * * *'", "correct the entry"),
    ],
)
def test_what_is_wrong_in_a_cron_yaml_is_said(
    folder: Path, env: Environment, wrong: dict[str, str], message: str, hint: str
) -> None:
    env(DISPATCH_PERIODIC_TASKS="record")
    (folder / "other.yaml").write_text(CRON.format_map(RIGHT | wrong))
    finding = examine(cron_file=Path("other.yaml"))["cron.yaml"]
    assert finding.level == ERROR
    assert message in finding.msg
    assert hint in str(finding.hint)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("Missing", "tests.declared_jobs defines no such task", "correct the name"),
        ("Report", "it is tests.declared_jobs.Report(number)", "give the parameters defaults"),
    ],
)
def test_a_periodic_task_that_cannot_run_as_it_is_called_is_said(
    folder: Path, env: Environment, name: str, message: str, hint: str
) -> None:
    name = f"tests.declared_jobs.{name}"
    env(DISPATCH_TASKS="tests.declared_jobs", DISPATCH_PERIODIC_TASKS=name)
    (folder / "cron.yaml").write_text(CRON.format_map(RIGHT | {"name": name}))
    finding = examine()["cron.yaml"]
    assert finding.level == ERROR
    assert message in finding.msg
    assert hint in str(finding.hint)


def test_a_periodic_task_whose_import_ends_the_process_does_not_end_the_doctor(
    folder: Path, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "nightly_script.py").write_text("import sys\nsys.exit('usage: FILE')\n")
    monkeypatch.syspath_prepend(folder)
    env(DISPATCH_TABLE="nightly=nightly_script.main", DISPATCH_PERIODIC_TASKS="nightly")
    (folder / "cron.yaml").write_text(CRON.format_map(RIGHT | {"name": "nightly"}))
    finding = examine()["cron.yaml"]
    assert finding.msg == "Unable to locate function: nightly_script.main"


def test_a_file_that_is_not_yaml_is_said(folder: Path) -> None:
    (folder / "cron.yaml").write_text("\tversion: 1")
    finding = examine()["cron.yaml"]
    assert finding.level == ERROR
    assert finding.msg.startswith("while scanning")  # the topic has said the file


def test_what_reads_a_cron_yaml_may_be_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cron.yaml").write_text(CRON.format_map(RIGHT))
    monkeypatch.setitem(sys.modules, "cronsim", None)
    finding = examine()["cron.yaml"]
    assert finding.msg.endswith("pip install 'django-beanstalk-dispatch[local]'")
    assert finding.hint == "the daemon itself needs neither"


def test_a_fifo_queue_has_no_periodic_tasks(folder: Path, env: Environment) -> None:
    env(DISPATCH_PERIODIC_TASKS="record", DISPATCH_QUEUES="orders=orders.fifo")
    (folder / "cron.yaml").write_text(CRON.format_map(RIGHT))
    assert "FIFO queue (orders)" in examine()["cron.yaml"].msg


# --- the lease -------------------------------------------------------------------------------


def lease(backend: str, **more: Any) -> CheckMessage:
    with override_settings(CACHES={"default": {"BACKEND": LOCMEM},
                                   "leases": {"BACKEND": backend, **more}}):  # fmt: skip
        return examine()["lease"]


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (f"{__name__}.OwnCache", "(OwnCache) is not shared by processes"),
        (f"{__name__}.Forgetful", "does not keep what is added to it"),
        (f"{__name__}.Broken", "does not answer: ConnectionError: refused"),
        ("tests.nowhere.Cache", "does not answer: InvalidCacheBackendError"),
        (
            "django.core.cache.backends.memcached.PyLibMCCache",
            "answer: ModuleNotFoundError: No mod",
        ),
    ],
)
def test_a_cache_that_cannot_hold_a_lease_is_said(
    env: Environment, backend: str, message: str
) -> None:
    env(DISPATCH_LEASE_CACHE="leases")
    finding = lease(backend)
    assert finding.level == ERROR
    assert message in finding.msg
    assert (finding.hint == "pip install pylibmc") is backend.endswith("PyLibMCCache")


def test_a_cache_that_is_shared_is_ok(env: Environment) -> None:
    env(DISPATCH_LEASE_CACHE="leases")
    backend = "django.core.cache.backends.redis.RedisCache"
    with valkey() as port:
        finding = lease(backend, LOCATION=f"redis://127.0.0.1:{port}")
        assert finding.msg == "the cache 'leases' answers and keeps its entries"
    caches["default"].clear()


def test_a_cache_that_is_missing_is_left_to_its_check(env: Environment) -> None:
    env(DISPATCH_LEASE_CACHE="nowhere")
    found = examine()
    assert "lease" not in found
    assert found["E006"].level == ERROR


def test_a_machine_that_drains_is_said(folder: Path, env: Environment) -> None:
    env(DISPATCH_DRAIN_FILE=folder / "drain")
    assert "draining" not in examine()
    (folder / "drain").touch()
    assert examine()["draining"].hint == f"rm {folder / 'drain'}"
