"""The pages as a person uses them: in a browser that runs no scripts, also on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.test import Client
from django.utils import timezone

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.messages.record import is_cancelled
from tests.browser import Browser, browser, find_browser
from tests.conftest import Environment
from tests.dead_letters import Dead
from tests.entries import add_entry

pytestmark = pytest.mark.django_db(transaction=True)
QUEUES = "/admin/beanstalk_workbench/deadletter/"
TASKS = "/admin/beanstalk_results/storedresult/"
LINE = f'  File "{"/long" * 60}.py", line 1, in charge_card\n'
ERROR = {"exception_class_path": "shop.Declined", "traceback": f"{LINE}shop.Declined: no money"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    command = find_browser()
    assert command
    with browser(command) as found:
        yield found


@pytest.fixture
def page(chromium: Browser, live_server: Any) -> Iterator[Browser]:
    """A browser in which a superuser has logged in."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    chromium.log_in(live_server.url, client.cookies["sessionid"].value)
    chromium.show_as(runs_scripts=False)
    yield chromium
    # A request that is still open would find the tables of the next test.
    chromium.open("about:blank")


@pytest.fixture
def tasks(sqs_env: Environment, queue_name: str) -> Iterator[None]:
    now = timezone.now()
    fields: dict[str, Any] = {"queue": queue_name, "enqueued_at": now, "expires_at": now}
    for number in range(3):
        StoredResult.objects.create(
            id=f"waits-{number}", function="record", status="READY", **fields
        )
    StoredResult.objects.create(
        id="failed", function="record", status="FAILED", errors=json.dumps([ERROR]),
        worker_ids='["one"]', args='["a secret"]', kwargs="{}", **fields,
    )  # fmt: skip
    sqs_env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    yield
    caches["default"].clear()


def choose(page: Browser, selector: str, value: str) -> None:
    """Choose an option of a ``select``, which headless Chromium opens outside of the page."""
    page.evaluate(f"document.querySelector({selector!r}).value = {value!r}")


def background(page: Browser) -> str:
    color: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return color


def test_tasks_are_found_cancelled_and_run_again(
    page: Browser, live_server: Any, tasks: None
) -> None:
    page.open(live_server.url + TASKS)
    page.click("#searchbar", opens_page=False)
    page.type("waits-1")
    page.click("#changelist-search [type=submit]")
    assert "1 task result" in page.words
    page.click(".action-select[value=waits-1]", opens_page=False)
    choose(page, "select[name=action]", "cancel_tasks")
    page.click("button[name=index]")
    assert "1 task cancelled" in page.words
    assert [is_cancelled(f"waits-{number}", get_config()) for number in range(3)] == [
        False, True, False,
    ]  # fmt: skip
    page.open(live_server.url + TASKS)
    page.click("#result_list a[href*='/failed/']")
    page.click("button[value=run_again]")
    assert "1 task run again" in page.words


@pytest.mark.parametrize("width", [1200, 390])
def test_a_task_shows_its_traceback_in_full(
    page: Browser, live_server: Any, tasks: None, width: int
) -> None:
    page.show_as(width=width, runs_scripts=False)
    page.open(live_server.url + TASKS)
    page.click("#result_list a[href*='/failed/']")
    assert "shop.Declined: no money" in page.words
    assert "a secret" in page.words
    assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('pre'))") == 0
    assert page.overflow == 0


def test_letters_of_a_group_are_redriven_and_others_discarded(
    page: Browser, live_server: Any, dead: Dead
) -> None:
    dead.sent_many(12)
    dead.sent("record", exception="KeyError: 1")
    dead.moved(id="moved")
    page.open(live_server.url + QUEUES)
    page.click(f"a[href$='/{dead.name}/']")
    assert "sample of 14 of about 14" in page.words
    page.click("a[href*='exception=ValueError']")
    assert "12 match in a sample of 14" in page.words
    choose(page, "select[name=scope]", "all")
    page.click("button[value=redrive]")
    assert f"with function='fail' exception='ValueError' queue='{dead.source_name}'" in page.words
    page.click("#content input[type=submit]")
    assert "Done: 12 redriven, 14 looked at, 0 stay." in page.words
    assert dead.ids() == ["moved", "record-0"]
    page.click("#content a[href*='exception=ValueError']")
    assert "No letter of the sample matches." in page.words
    page.click(".breadcrumbs a[href$='/deadletter/']")
    page.click(f"a[href$='/{dead.name}/']")
    page.click("a[href*='/letter/']")
    page.click("button[value=discard]")
    page.click("#id_name", opens_page=False)
    page.type(dead.name)
    page.click("#content input[type=submit]")
    assert "Done: 1 discarded" in page.words
    assert len(dead.ids()) == 1


def test_every_page_fits_on_a_phone_and_is_dark_if_asked_to(
    page: Browser, live_server: Any, dead: Dead, sqs_env: Environment
) -> None:
    dead.sent(traceback=LINE)
    (dead_letter,) = dead.open().sample().dead_letters
    sqs_env(DISPATCH_LEASE_CACHE="default")
    add_entry("ip-10-0-1-23.eu-central-1.compute.internal" * 3, ago=90, tasks={"a" * 36: 90})
    shades = set()
    for is_dark in (False, True):
        page.show_as(width=390, is_dark=is_dark, runs_scripts=False)
        for address in (
            "", "_running/", f"{dead.name}/", f"{dead.name}/?since=yesterday",
            f"{dead.name}/letter/{dead_letter.message_id}/",
        ):  # fmt: skip
            page.open(live_server.url + QUEUES + address)
            assert page.overflow == 0
            shades.add((is_dark, background(page)))
    assert len(shades) == 2
    assert len(dict(shades)) == 2
