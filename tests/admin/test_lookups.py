"""Which columns a URL can ask, of every model of the package and as every kind of user."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from django.contrib import admin
from django.contrib.admin import ModelAdmin
from django.contrib.auth.models import Permission, User
from django.core.exceptions import SuspiciousOperation
from django.db.models import Model
from django.test import Client, RequestFactory
from django.utils import timezone

from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from beanstalk_dispatch.contrib.read_only_admin import ReadOnlyAdmin
from beanstalk_dispatch.contrib.results.admin import StoredResultAdmin
from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.contrib.workbench.models import DeadLetter

pytestmark = pytest.mark.django_db
SECRET = "a-secret"
MODELS = [each for each in admin.site._registry if each._meta.app_label.startswith("beanstalk_")]
TABLES = [each for each in MODELS if each._meta.managed]
FILTERED = {
    StoredResult: {"id", "function", "status", "enqueued_at"},
    OutboxMessage: {"task_id", "function", "queue"},
}
"""The columns of each page's filters and search, which the page shows to all who may see it."""
LOOKUPS = {
    "": SECRET,
    "__exact": SECRET,
    "__iexact": SECRET,
    "__startswith": '["a',
    "__contains": "secret",
    "__regex": "a-s.*",
    "__gt": "[",
    "__in": SECRET,
    "__isnull": "False",
    "__length__gt": "2",
    "__no_such_lookup": "x",
}
SOME_LOOKUPS = {each: LOOKUPS[each] for each in ("", "__startswith")}
"""For the other users: what is allowed differs by column, and hardly by lookup and user."""
USERS = {
    "viewer": ["view_storedresult", "view_outboxmessage", "view_deadletter"],
    "reader": ["view_storedresult", "view_storedresult_arguments", "view_outboxmessage"],
    "operator": ["view_storedresult", "cancel_storedresult", "delete_storedresult",
                 "run_storedresult", "view_outboxmessage"],
    "superuser": [],
}  # fmt: skip


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> User:
    caplog.set_level(logging.CRITICAL, "django.security")  # each refusal would log a traceback
    user = User.objects.create_user(
        "user", is_staff=True, is_superuser=request.param == "superuser"
    )
    user.user_permissions.set(Permission.objects.filter(codename__in=USERS[request.param]))
    now = timezone.now()
    hidden = json.dumps([SECRET])
    StoredResult.objects.create(
        id="id", function="record", queue="jobs", status="FAILED", enqueued_at=now, expires_at=now,
        args=hidden, kwargs=hidden, return_value=hidden, headers=json.dumps({"a": SECRET}),
    )  # fmt: skip
    OutboxMessage.objects.create(
        task_id="id", function="record", queue="jobs", body=hidden, parameters=hidden
    )
    return user


@pytest.fixture
def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def look(user: User, model: type[Model], **query: str) -> Any:
    """Return the page's answer to a query. It is not written as HTML, which takes most of the time.

    Raise SuspiciousOperation where Django answers with status 400.
    """
    request = RequestFactory().get("/", query)
    request.user = user
    return admin.site.get_model_admin(model).changelist_view(request)


def pages(model: type[Model]) -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


def columns(model: type[Model]) -> set[str]:
    return {each.name for each in model._meta.concrete_fields}


def test_every_admin_of_the_package_knows_its_filters_only() -> None:
    assert set(MODELS) == {StoredResult, OutboxMessage, DeadLetter}
    assert all(isinstance(admin.site.get_model_admin(each), ReadOnlyAdmin) for each in MODELS)


@pytest.mark.parametrize("model", TABLES)
@pytest.mark.parametrize(
    ("user", "lookups"),
    [(user, LOOKUPS if user == "reader" else SOME_LOOKUPS) for user in USERS],
    indirect=["user"], ids=USERS,
)  # fmt: skip
def test_only_the_columns_of_filters_can_be_asked(
    user: User, lookups: dict[str, str], model: type[Model]
) -> None:
    answered = set()
    for column in {*columns(model), "pk"}:
        for lookup, value in lookups.items():
            with suppress(SuspiciousOperation):
                look(user, model, **{f"{column}{lookup}": value})
                answered.add(column)
    assert answered == FILTERED[model]


@pytest.mark.parametrize("model", TABLES)
def test_the_filters_of_the_page_work(logged_in: Client, model: type[Model]) -> None:
    found = {"status__exact": "FAILED"} if model is StoredResult else {"queue": "jobs"}
    for query, count in ((found, 1), (dict.fromkeys(found, "READY"), 0), ({"q": "id"}, 1)):
        assert logged_in.get(pages(model), query).context["cl"].result_count == count
    day = {"enqueued_at__gte": "2000-01-01 00:00:00+00:00"}
    expected = 200 if model is StoredResult else 400
    assert logged_in.get(pages(model), day).status_code == expected


@pytest.mark.parametrize(
    ("user", "model"), [("reader", StoredResult), ("superuser", OutboxMessage)], indirect=["user"]
)
def test_search_order_and_addresses_show_no_other_column(
    user: User, logged_in: Client, model: type[Model]
) -> None:
    for query in (SECRET, "secret", '["'):
        assert look(user, model, q=query).context_data["cl"].result_count == 0
    model_admin: Any = admin.site.get_model_admin(model)
    shown = {*model_admin.list_display, *FILTERED[model], "pk", "id"}
    numbers = map(str, range(-1, 20))
    for order in (*numbers, *columns(model), "-1.2.args"):
        changes = look(user, model, o=order).context_data["cl"]
        assert {str(each).lstrip("-") for each in changes.queryset.query.order_by} <= shown
    for column in columns(model) - {model._meta.pk and model._meta.pk.name}:
        asked = {"_to_field": column}
        for page in ("", f"{json.dumps([SECRET])}/change/"):
            assert logged_in.get(pages(model) + page, asked).status_code == 400


class Filter(admin.SimpleListFilter):
    title = parameter_name = "of_the_project"

    def lookups(self, request: Any, model_admin: Any) -> None:
        """Offer nothing."""

    def queryset(self, request: Any, queryset: Any) -> None:
        """Let every row through."""


class OwnAdmin(StoredResultAdmin):
    """As a project may register it."""

    list_filter: ClassVar[Any] = (("queue", admin.AllValuesFieldListFilter), Filter)
    search_fields: ClassVar[Any] = ("^worker_ids",)
    date_hierarchy = "finished_at"


def test_a_project_may_add_filters_of_its_own() -> None:
    own: ModelAdmin[StoredResult] = OwnAdmin(StoredResult, admin.site)
    request = RequestFactory().get("/")
    allowed = {
        each
        for each in (*columns(StoredResult), "of_the_project")
        if own.lookup_allowed(each, "x", request)
    }
    assert allowed == {"queue", "of_the_project", "worker_ids", "finished_at"}


def test_a_search_for_a_task_id_can_use_the_index() -> None:
    page = StoredResultAdmin(StoredResult, admin.site)
    found, _ = page.get_search_results(RequestFactory().get("/"), StoredResult.objects.all(), "id")
    where = str(found.query).partition(" WHERE ")[2].upper()
    assert '"ID" = ID' in where
    assert "LIKE" not in where
