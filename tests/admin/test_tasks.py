"""The pages of results: what they show to whom, and the actions on tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.cache import caches
from django.test import Client
from django.utils import timezone

from beanstalk_dispatch import client as client_module
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.exceptions import LeaseUnavailable
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.record import is_cancelled, to_be_stopped
from beanstalk_dispatch.sqs.opening import open_queue
from tests.admin.users import client
from tests.conftest import Environment

pytestmark = pytest.mark.django_db
PAGES = "/admin/beanstalk_results/storedresult/"
ERRORS = [{"exception_class_path": "shop.Declined", "traceback": "Traceback <of> the \u202efirst"}]


@pytest.fixture
def results(sqs_env: Environment, queue_name: str) -> Iterator[Environment]:
    now = timezone.now()
    fields: dict[str, Any] = {"queue": queue_name, "enqueued_at": now, "expires_at": now}
    StoredResult.objects.create(id="waits", function="record", status="READY", **fields)
    StoredResult.objects.create(
        id="failed", function="record", status="FAILED", errors=json.dumps(ERRORS),
        worker_ids='[199,"one"]', progress="[300,1000]", args='["a secret"]', kwargs='{"b": 2}',
        started_at=now, last_attempted_at=now, finished_at=now + timedelta(seconds=1.5), **fields,
    )  # fmt: skip
    sqs_env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    yield sqs_env
    caches["default"].clear()


def act(logged_in: Client, action: str, *ids: str, pages: str = PAGES) -> str:
    form = {"action": action, "_selected_action": ids}
    return logged_in.post(pages, form, follow=True).content.decode()


def test_tasks_are_listed_and_searched(results: Environment) -> None:
    logged_in = client("view_storedresult")
    page = logged_in.get(PAGES).content.decode()
    assert "FAILED: Declined" in page
    assert "1.500 s" in page
    assert '<td class="field-attempts">200</td>' in page
    for query in ("?q=waits", "?status__exact=READY"):
        found = logged_in.get(PAGES + query).content.decode()
        assert "waits" in found
        assert "Declined" not in found
    assert "Cancel the selected" not in page
    assert "Run the selected" not in page


def test_tasks_are_searched_by_argument_by_those_who_may_see_them(results: Environment) -> None:
    StoredResult.objects.filter(id="waits").update(kwargs=json.dumps({"customer": "Zo\xeb"}))
    logged_in = client("view_storedresult")

    def found(query: str) -> int:
        page = logged_in.get(PAGES, {"q": query})
        count: int = page.context["cl"].result_count
        return count

    queries = ("argument=a secret", "argument=Zo\xeb", 'argument="b": 2')
    assert [found(each) for each in queries] == [0, 0, 0]
    User.objects.get().user_permissions.add(
        Permission.objects.get(codename="view_storedresult_arguments")
    )
    assert [found(each) for each in queries] == [1, 1, 1]
    assert [found(each) for each in ("argument=nobody", "argument", "other=a secret")] == [0, 0, 0]


def test_a_task_shows_its_traceback_and_its_arguments_to_those_who_may_see_them(
    results: Environment,
) -> None:
    logged_in = client("view_storedresult")
    page = logged_in.get(f"{PAGES}failed/change/").content.decode()
    assert r"Traceback &lt;of&gt; the \u202efirst</pre>" in page
    assert "300 of 1,000 (30 %)" in page
    assert "a secret" not in page
    User.objects.get().user_permissions.add(
        Permission.objects.get(codename="view_storedresult_arguments")
    )
    assert "a secret" in logged_in.get(f"{PAGES}failed/change/").content.decode()


def test_the_name_of_an_exception_moves_no_text(results: Environment) -> None:
    errors = [{"exception_class_path": "shop.D\u202e\nx\ud800", "traceback": "of it"}]
    StoredResult.objects.filter(id="failed").update(errors=json.dumps(errors))
    page = client("view_storedresult").get(PAGES).content.decode()
    assert "FAILED: D\\u202e\\nx\\ud800" in page


def test_the_page_of_a_task_has_the_buttons_of_those_who_may_use_them(
    results: Environment,
) -> None:
    logged_in = client("view_storedresult")
    page = logged_in.get(f"{PAGES}waits/change/").content.decode()
    assert "this task" not in page
    User.objects.get().user_permissions.add(Permission.objects.get(codename="cancel_storedresult"))
    page = logged_in.get(f"{PAGES}waits/change/").content.decode()
    assert "Cancel this task</button>" in page
    assert "Stop this task now</button>" in page
    assert "Run this task again" not in page


@pytest.mark.parametrize("pages", [PAGES, PAGES.replace("admin", "second")])
def test_tasks_are_cancelled(results: Environment, pages: str) -> None:
    logged_in = client("view_storedresult", "cancel_storedresult")
    page = act(logged_in, "cancel_tasks", "waits", "failed", pages=pages)
    assert "1 task cancelled" in page
    assert "1 task had finished before" in page
    assert is_cancelled("waits", get_config())
    assert not is_cancelled("failed", get_config())
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == ("waits", "Cancelled.")
    assert "had finished before" not in act(logged_in, "cancel_tasks", "waits", pages=pages)


def test_running_tasks_are_stopped(results: Environment) -> None:
    logged_in = client("view_storedresult", "cancel_storedresult")
    assert "BEANSTALK_DISPATCH_ISOLATION is thread here" in act(logged_in, "stop_tasks", "waits")
    assert not is_cancelled("waits", get_config())
    results(DISPATCH_ISOLATION="process")
    assert "1 task to be stopped" in act(logged_in, "stop_tasks", "waits")
    assert to_be_stopped(["waits"], get_config()) == {"waits"}
    assert LogEntry.objects.get().change_message == "Stopped."


def test_without_a_lease_nothing_is_cancelled(results: Environment) -> None:
    results(DISPATCH_LEASE_CACHE=None)
    page = act(client("view_storedresult", "cancel_storedresult"), "cancel_tasks", "waits")
    assert "BEANSTALK_DISPATCH_LEASE_CACHE is not set" in page
    assert LogEntry.objects.count() == 0


def test_tasks_run_again_as_new_tasks(results: Environment) -> None:
    page = act(client("view_storedresult", "run_storedresult"), "run_again", "waits", "failed")
    assert "1 task run again" in page
    assert "1 task not run again: BEANSTALK_DISPATCH_RESULT_ARGUMENTS was not set" in page
    queue = open_queue("jobs")
    (received,) = queue.receive(count=10, wait=0, visibility=30)
    message = Message.decode(received.body, queue=queue.name)
    assert (message.function, message.args, message.kwargs) == ("record", ["a secret"], {"b": 2})
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.change_message) == ("failed", f"Run again as {message.id}.")


def test_an_error_ends_the_action_and_the_rest_is_counted(
    results: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(task_id: str, *, stop: bool) -> None:
        raise LeaseUnavailable("no answer")

    monkeypatch.setattr(client_module, "cancel", fail)
    page = act(client("view_storedresult", "cancel_storedresult"), "cancel_tasks", "waits")
    assert "Record waits: no answer" in page
    assert "1 task left alone because of the error" in page


def test_an_action_is_a_post_with_a_token(results: Environment) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.create_superuser("admin"))
    form = {"action": "cancel_tasks", "_selected_action": ["waits"]}
    assert strict.post(PAGES, form).status_code == 403
    assert not is_cancelled("waits", get_config())
    assert LogEntry.objects.count() == 0
