"""Every address of the admin's pages, found by itself, with every method: who may change what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.cache import caches
from django.template.base import Template
from django.test import Client
from django.urls import get_resolver, reverse
from django.utils import timezone

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.messages.record import is_cancelled, paused_since
from tests.admin import users
from tests.conftest import Environment
from tests.dead_letters import Dead

pytestmark = pytest.mark.django_db
VIEWS = ("view_deadletter", "view_deadletter_arguments", "view_storedresult",
         "view_storedresult_arguments", "view_outboxmessage")  # fmt: skip
METHODS = ("get", "post", "put", "patch", "delete")
FORMS = (
    {"action": "redrive", "scope": "all", "confirmed": "on"},
    {"action": "discard", "scope": "all", "confirmed": "on"},
    {"action": "cancel_tasks", "_selected_action": "task"},
    {"action": "stop_tasks", "_selected_action": "task"},
    {"action": "run_again", "_selected_action": "task"},
    {"action": "delete_selected", "_selected_action": "task", "post": "yes"},
    {"pause": "on"},
    {"resume": "on"},
    {"post": "yes", "function": "other"},
)
"""What one page or another would act on. A new action belongs here."""
ACTING = ("/act/", "/pause/", "/storedresult/", "/delete/")
"""How the addresses of these pages end."""


@pytest.fixture
def everything(dead: Dead, sqs_env: Environment) -> Iterator[Dead]:
    """Two letters, a task that could be cancelled or run again, and a queue that is not paused."""
    sqs_env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    fill(dead)
    yield dead
    caches["default"].clear()


@pytest.fixture
def without_html(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are not written as HTML, which takes most of the time and changes nothing."""
    monkeypatch.setattr(Template, "render", lambda self, context: "")


def fill(dead: Dead) -> None:
    dead.sent_many(2)
    StoredResult.objects.update_or_create(id="task", defaults={
        "function": "record", "queue": dead.source_name, "status": "READY", "args": "[1]",
        "kwargs": "{}", "enqueued_at": timezone.now(), "expires_at": timezone.now(),
    })  # fmt: skip
    OutboxMessage.objects.update_or_create(id=1, task_id="task", function="record", queue="jobs")


def addresses(dead: Dead) -> list[str]:
    """The pages of this package on both sites. A new parameter of an address belongs here."""
    values = {"queue": dead.name, "letter": "fail-0"}
    found = []
    for namespace in ("admin", "second"):
        _, resolver = get_resolver().namespace_dict[namespace]
        for name in {each for each in resolver.reverse_dict if str(each).startswith("beanstalk_")}:
            (((_, parameters),), *_), *_ = resolver.reverse_dict.getlist(name)
            values["object_id"] = "1" if "outbox" in str(name) else "task"
            needed = {each: values[each] for each in parameters}
            found.append(reverse(f"{namespace}:{name}", kwargs=needed))
    return sorted(found)


def state_of(dead: Dead) -> tuple[Any, ...]:
    return (
        dead.ids(), dead.ids(dead.source), list(StoredResult.objects.values_list()),
        list(OutboxMessage.objects.values_list()),
        is_cancelled("task", get_config()), dict(paused_since([dead.name], get_config())),
        LogEntry.objects.count(),
    )  # fmt: skip


def test_every_page_of_the_package_is_found(everything: Dead) -> None:
    found = {re.sub(r"/(admin|second)/beanstalk_", "", each) for each in addresses(everything)}
    letters = f"workbench/deadletter/{everything.name}/"
    assert {letters, f"{letters}act/", f"{letters}pause/", "results/storedresult/"} <= found


@pytest.mark.parametrize("method", METHODS)
def test_a_user_who_may_view_can_change_nothing_by_any_address(
    everything: Dead, method: str, without_html: None
) -> None:
    client, before = users.client(*VIEWS), state_of(everything)
    for address in addresses(everything):
        # The pages of the second site are the same, at other addresses.
        has_all = method == "post" and address.startswith("/admin/")
        for form in FORMS if has_all else FORMS[:1]:
            given: Any = form | {"name": everything.name}
            is_form = method in {"get", "post"}
            getattr(client, method)(address, given if is_form else json.dumps(given))
    assert state_of(everything) == before


def test_a_superuser_changes_something_by_each_form(everything: Dead, without_html: None) -> None:
    """So the test above has sent what would change something."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    for form in FORMS:
        fill(everything)
        before = state_of(everything)
        for address in addresses(everything):
            if address.startswith("/admin/") and address.endswith(ACTING):
                b"".join(client.post(address, form | {"name": everything.name}))
        assert state_of(everything)[:-1] != before[:-1], form


@pytest.mark.parametrize(("is_staff", "status"), [(True, 403), (False, 302)])
def test_a_user_without_permissions_sees_no_page(
    everything: Dead, is_staff: bool, status: int
) -> None:
    """A user who is not staff is sent to the login page."""
    client = users.client(is_staff=is_staff)
    assert {client.get(each).status_code for each in addresses(everything)} == {status}
