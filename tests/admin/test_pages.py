"""Every page and every action, as users with different permissions see them."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.cache import caches
from django.core.management import call_command
from django.test import AsyncClient, Client, RequestFactory
from django.utils import timezone

from beanstalk_dispatch.contrib.results.models import StoredResult
from beanstalk_dispatch.contrib.workbench import admin, progress
from beanstalk_dispatch.contrib.workbench.models import DeadLetter
from beanstalk_dispatch.dead_letters.queue import DeadLetterQueue
from beanstalk_dispatch.exceptions import LeaseUnavailable, SendError
from beanstalk_dispatch.messages.record import pause, resume
from beanstalk_dispatch.queues import running
from beanstalk_dispatch.sqs.administration import get_attributes
from beanstalk_dispatch.sqs.queue import Queue
from tests.admin.users import client
from tests.conftest import Environment
from tests.dead_letters import KEY, Dead, failing
from tests.entries import add_entry
from tests.proxy import Proxy

pytestmark = pytest.mark.django_db
PAGES = "/admin/beanstalk_workbench/deadletter/"
ALL = ("view_deadletter", "redrive_deadletter", "delete_deadletter", "view_deadletter_arguments")


def words(response: Any) -> str:
    """What a person reads on the page."""
    html = b"".join(response).decode()
    content = html[html.index('id="content-main"') :]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", content)).split())


# --- pages -----------------------------------------------------------------------------------


def test_the_index_leads_to_the_queues(dead: Dead) -> None:
    logged_in = client("view_deadletter")
    assert PAGES in logged_in.get("/admin/").content.decode()
    page = words(logged_in.get(PAGES))
    assert f"jobs ({dead.source_name}) 0 0 0 5m 4d {dead.name} after 10 receives" in page
    assert f"{dead.name} 0 0 0 30s 4d is that of {dead.source_name}" in page


def test_a_queue_is_paused_and_resumed(dead: Dead, sqs_env: Environment) -> None:
    caches["default"].clear()
    logged_in = client("view_deadletter", "pause_queue")
    page = words(logged_in.post(f"{PAGES}jobs/pause/", {"pause": "on"}, follow=True))
    assert "for 0s Resume" not in page
    assert LogEntry.objects.count() == 0
    sqs_env(DISPATCH_LEASE_CACHE="default")
    response = logged_in.post(f"{PAGES}jobs/pause/", {"pause": "on"}, follow=True)
    assert f"Paused: {dead.source_name}<" in response.content.decode()
    assert "for 0s Resume" in words(response)
    response = logged_in.post(f"{PAGES}jobs/pause/", {"resume": "on"}, follow=True)
    assert "Resume" not in words(response)
    entries = LogEntry.objects.order_by("pk").values_list("object_repr", "change_message")
    assert list(entries) == [(dead.source_name, "Paused."), (dead.source_name, "Resumed.")]
    assert f"{PAGES}jobs/pause/" in response.content.decode()
    # Nothing receives from a dead-letter queue, so there is nothing to pause.
    assert f"{PAGES}{dead.name}/pause/" not in response.content.decode()
    pause(dead.name)
    assert f"{PAGES}{dead.name}/pause/" in logged_in.get(PAGES).content.decode()
    resume(dead.name)
    sqs_env(DISPATCH_QUEUES="order=order.fifo")
    response = logged_in.post(f"{PAGES}order/pause/", {"pause": "on"}, follow=True)
    assert "only beanstalk_worker pauses it" in response.content.decode()
    caches["default"].clear()


def test_who_may_not_pause_sees_only_that_a_queue_is_paused(
    dead: Dead, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_LEASE_CACHE="default")
    caches["default"].clear()
    logged_in = client("view_deadletter", "redrive_deadletter", "delete_deadletter")
    assert logged_in.post(f"{PAGES}jobs/pause/", {"pause": "on"}).status_code == 403
    assert logged_in.get(f"{PAGES}jobs/pause/").status_code == 405
    assert "Pause jobs" not in logged_in.get(PAGES).content.decode()
    pause(dead.source_name)
    page = words(logged_in.get(PAGES))
    assert "for 0s" in page
    assert "Resume" not in page
    caches["default"].clear()


def test_a_page_without_queues_says_what_to_set(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES=None)
    page = words(client("view_deadletter").get(PAGES))
    assert "Set BEANSTALK_DISPATCH_QUEUES" in page


def test_a_missing_permission_is_named(dead: Dead, spoilt: Proxy) -> None:
    logged_in = client("view_deadletter")
    spoilt.spoil = failing("GetQueueAttributes", status=403)
    assert "the permission sqs:GetQueueAttributes is missing" in words(logged_in.get(PAGES))
    spoilt.spoil = failing("ReceiveMessage", status=403)
    for page in (f"{dead.name}/", f"{dead.name}/letter/fail-0/"):
        found = words(logged_in.get(PAGES + page))
        assert "the permission sqs:ReceiveMessage is missing" in found
        assert "not found" not in found


def test_an_error_of_the_queues_is_shown(dead: Dead, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise SendError("SQS says no")

    monkeypatch.setattr(admin, "queue_statuses", fail)
    logged_in = client("view_deadletter")
    assert "SQS says no" in words(logged_in.get(PAGES))
    assert "SQS says no" in words(logged_in.get(f"{PAGES}_find/fail-0/"))


def test_a_dead_letter_queue_with_letters_is_red(dead: Dead) -> None:
    logged_in = client("view_deadletter")
    red = f'style="{admin._RED}"'
    assert red not in logged_in.get(PAGES).content.decode()
    dead.sent_many(2)
    assert f"{red}>2</td>" in logged_in.get(PAGES).content.decode()


# --- what runs now ---------------------------------------------------------------------------


def test_the_running_tasks_lead_to_their_results(
    lease_env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(running, "CRON_FILE", tmp_path / "cron.yaml")
    monkeypatch.setattr(running, "MAX_TASKS", 2)
    add_entry("<b>one", tasks={"a_1": 3.0, "b": 2.0, "c": 1.0}, next_runs=[["clean_up", 4e9]])
    add_entry("killed", ago=90)
    logged_in = client("view_deadletter", "view_storedresult")
    response = logged_in.get(f"{PAGES}_running/")
    page, html = words(response), response.content.decode()
    assert (
        "3s record 1 - jobs <b>one 7 a_1 2s record 1 - jobs <b>one 7 b 1 more are not shown."
        in page
    )
    assert "killed 7 poller jobs 0 of 4 1.1.0 1h 1m 30s ago: killed, or it hangs" in page
    assert "clean_up in" in page
    assert "<b>one" not in html
    assert html.count(admin._RED) == 8
    assert "/storedresult/a" not in html
    lease_env(DISPATCH_RESULTS="db")
    now = timezone.now()
    StoredResult.objects.create(
        id="a_1", function="record", progress="[3,4]", enqueued_at=now, expires_at=now
    )
    assert "3s record 1 3 of 4 (75 %) jobs" in words(logged_in.get(f"{PAGES}_running/"))
    html = logged_in.get(f"{PAGES}_running/").content.decode()
    assert 'href="/admin/beanstalk_results/storedresult/a_5F1/change/"' in html
    User.objects.get().user_permissions.remove(Permission.objects.get(codename="view_storedresult"))
    assert "/storedresult/a" not in logged_in.get(f"{PAGES}_running/").content.decode()
    caches["default"].clear()
    assert "Tasks None. Workers None. Periodic tasks None." in words(
        logged_in.get(f"{PAGES}_running/")
    )


def test_what_runs_is_not_known_without_a_cache(
    lease_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_in = client("view_deadletter")

    def fail() -> None:
        raise LeaseUnavailable("ConnectionError of cache 'default'")

    with monkeypatch.context() as patch:
        patch.setattr(admin, "what_runs", fail)
        page = words(logged_in.get(f"{PAGES}_running/"))
    assert page.startswith("ConnectionError of cache 'default'", page.index("Conn"))
    lease_env(DISPATCH_LEASE_CACHE=None)
    page = words(logged_in.get(f"{PAGES}_running/"))
    assert "BEANSTALK_DISPATCH_LEASE_CACHE is not set" in page


def test_letters_are_shown_in_groups_and_one_by_one(dead: Dead) -> None:
    dead.sent_many(2)
    dead.moved(id="moved")
    page = words(client("view_deadletter").get(f"{PAGES}{dead.name}/"))
    assert "sample of 3 of about 3" in page
    assert f"2 of 3 fail ValueError {dead.source_name} 1m" in page
    assert "moved record 1 0s moved by SQS" in page
    assert "Redrive" not in page
    assert len(dead.ids()) == 3


def test_letters_are_filtered(dead: Dead) -> None:
    dead.sent_many(2)
    dead.moved(id="moved")
    logged_in = client("view_deadletter")
    page = logged_in.get(f"{PAGES}{dead.name}/", {"function": "fail", "since": "1h"})
    assert "2 match in a sample of 3" in words(page)
    for name, answer in (("jobs", "sample of 3"), ("other", "0 match in a sample of 3")):
        page = logged_in.get(f"{PAGES}{dead.name}/", {"queue": name})
        assert f"{dead.name}: {answer}" in words(page)
    page = logged_in.get(f"{PAGES}{dead.name}/", {"sample": "1"})
    assert "sample of 1 of about 3" in words(page)
    page = logged_in.get(f"{PAGES}{dead.name}/", {"since": "yesterday"})
    assert "neither an age" in words(page)
    assert "sample of" not in words(page)


def test_a_source_queue_is_not_looked_at(dead: Dead) -> None:
    page = words(client("view_deadletter").get(f"{PAGES}jobs/"))
    assert f"its dead-letter queue is {dead.name}" in page


def test_one_letter_is_shown_without_its_arguments(dead: Dead, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_SIGNING_KEYS=KEY)
    dead.sent(number=771)
    page = words(client("view_deadletter").get(f"{PAGES}{dead.name}/letter/fail-771/"))
    assert "Exception ValueError: the reason" in page
    assert "Signature valid" in page
    assert "Traceback (most recent call last):" in page
    assert "[771]" not in page
    assert "you have no permission to view them" in page


def test_who_may_redrive_and_delete_may_not_therefore_see_the_arguments(dead: Dead) -> None:
    dead.sent(number=771)
    logged_in = client("view_deadletter", "redrive_deadletter", "delete_deadletter", "pause_queue")
    page = words(logged_in.get(f"{PAGES}{dead.name}/letter/fail-771/"))
    assert "[771]" not in page
    assert "you have no permission to view them" in page


def test_a_user_with_the_permission_sees_the_arguments(dead: Dead) -> None:
    dead.sent(number=771)
    dead.queue.send("{<b>", {})
    logged_in = client("view_deadletter", "view_deadletter_arguments")
    assert "Args [771]" in words(logged_in.get(f"{PAGES}{dead.name}/letter/fail-771/"))
    (broken,) = [each for each in dead.open().sample().dead_letters if each.problem]
    page = logged_in.get(f"{PAGES}{dead.name}/letter/{broken.message_id}/")
    assert "Body {<b>" in words(page)
    assert b"<b>" not in page.content


def test_what_a_stranger_has_written_is_escaped(
    dead: Dead, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "one\x1b[2J\r\u2028\u202etwo"
    dead.sent(id=evil, function=evil, exception=evil, outcome=evil, traceback=f"{evil}\n{evil}")
    dead.queue.send("{" + evil, {})
    logged_in = client("view_deadletter", "view_deadletter_arguments")
    found = dead.open().sample().dead_letters
    pages = [PAGES + dead.name, *(f"{PAGES}{dead.name}/letter/{x.message_id}" for x in found)]
    shown = [logged_in.get(f"{page}/").content.decode() for page in pages]
    for command in (["list"], *(["show", each.message_id] for each in found)):
        call_command("beanstalk_dead_letters", *command)
        shown.append(capsys.readouterr().out)
    for page in shown:
        assert r"one\x1b[2J\r\u2028\u202etwo" in page
        assert re.sub("[\n\xa0]", "", page).isprintable()


def test_a_letter_and_the_result_of_its_task_lead_to_each_other(
    dead: Dead, sqs_env: Environment
) -> None:
    sqs_env(DISPATCH_RESULTS="db")
    dead.sent(function="fail_often", id="fail_often-1")
    now = timezone.now()
    StoredResult.objects.create(
        id="fail_often-0", function="fail_often", status="FAILED", enqueued_at=now, expires_at=now
    )
    logged_in = client("view_deadletter", "view_storedresult")
    html = logged_in.get(f"{PAGES}_find/fail_5Foften-0/").content.decode()
    result = "/admin/beanstalk_results/storedresult/fail_5Foften-0/change/"
    assert f'href="{result}">fail_often-0</a>' in html
    assert f'action="{PAGES}{dead.name}/act/"' in html
    assert f'href="{PAGES}_find/fail_5Foften-0/"' in logged_in.get(result).content.decode()
    assert "was not found" in words(logged_in.get(f"{PAGES}_find/other/"))
    User.objects.get().user_permissions.remove(Permission.objects.get(codename="view_deadletter"))
    assert "_find" not in logged_in.get(result).content.decode()


def test_a_room_that_is_not_installed_has_no_page(dead: Dead, rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = User.objects.create_superuser("root")
    page: Any = site.get_model_admin(StoredResult)
    assert page.page_of_other_room(request, "nowhere_model", "change", "1") == ""


def test_letters_are_searched_by_argument_by_those_who_may_see_them(dead: Dead) -> None:
    dead.sent_many(3)
    dead.queue.send("{not read 77", {})
    given = {"argument": "[1]"}
    logged_in = client(*ALL)
    page = words(logged_in.get(f"{PAGES}{dead.name}/", given))
    assert "1 match in a sample of 4" in page
    assert "1 match" in words(logged_in.get(f"{PAGES}{dead.name}/", {"argument": "read 77"}))
    asked = words(act(logged_in, dead, action="redrive", scope="all", **given))
    assert "all letters with argument='[1]'" in asked
    hidden = Permission.objects.get(codename="view_deadletter_arguments")
    User.objects.get().user_permissions.remove(hidden)
    assert "Argument" not in words(logged_in.get(f"{PAGES}{dead.name}/"))
    page = words(logged_in.get(f"{PAGES}{dead.name}/", given))
    assert "You have no permission to view arguments." in page
    assert "match" not in page
    # Without the filter, the action would be one on all letters.
    act(logged_in, dead, action="redrive", scope="all", confirmed="on", **given)
    assert get_attributes(dead.queue).visible == 4
    User.objects.get().user_permissions.add(hidden)
    done = words(act(logged_in, dead, action="redrive", scope="all", confirmed="on", **given))
    assert "1 redriven, 4 looked at, 0 stay." in done
    assert "with argument='hidden'. Done: 1." in LogEntry.objects.get().change_message


def test_a_letter_that_is_gone_is_not_found(dead: Dead) -> None:
    page = words(client("view_deadletter").get(f"{PAGES}{dead.name}/letter/other/"))
    assert "The letter other was not found." in page


@pytest.mark.parametrize(("batch", "receives"), [(10, 10), (1, 20)])
def test_a_look_for_an_unknown_letter_makes_few_requests(
    dead: Dead, spoilt: Proxy, batch: int, receives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS may hand out one letter at a time, whatever it is asked for."""
    receive = Queue.receive
    monkeypatch.setattr(
        Queue, "receive", lambda queue, *, count, **rest: receive(queue, count=batch, **rest)
    )
    dead.sent_many(150)
    logged_in = client("view_deadletter")
    spoilt.counts.clear()
    page = words(logged_in.get(f"{PAGES}{dead.name}/letter/other/"))
    assert "This page looks at 100 letters at most." in page
    assert spoilt.counts["ReceiveMessage"] == receives
    assert spoilt.counts.total() <= 30
    assert get_attributes(dead.queue).in_flight == 0


# --- actions ---------------------------------------------------------------------------------


def act(logged_in: Client, dead: Dead, **data: Any) -> Any:
    return logged_in.post(f"{PAGES}{dead.name}/act/", data)


def test_all_that_match_are_redriven_after_a_confirmation(
    dead: Dead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "STEP_SECONDS", 0)
    dead.sent_many(12)
    dead.moved(id="moved")
    logged_in = client(*ALL)
    given = {"action": "redrive", "scope": "all", "exception": "ValueError"}
    asked = words(act(logged_in, dead, **given))
    assert f"all letters with exception='ValueError' on {dead.name}" in asked
    assert len(dead.ids()) == 13
    done = words(act(logged_in, dead, **given, confirmed="on"))
    assert "1 redriven, " in done
    assert "12 redriven, 13 looked at, 0 stay." in done
    assert dead.ids() == ["moved"]
    assert len(dead.ids(dead.source)) == 12
    (entry,) = LogEntry.objects.all()
    assert (entry.object_repr, entry.is_change()) == (dead.name, True)
    assert str(DeadLetter()) == "dead letter"
    assert entry.get_change_message() == (
        "Redriven: all letters with exception='ValueError'. Done: 12. Not possible: 0."
    )
    assert entry.get_admin_url() == f"{PAGES}{dead.name}/"


def test_a_filter_without_a_match_in_the_sample_may_have_one_outside_of_it(dead: Dead) -> None:
    dead.sent_many(3)
    dead.moved(id="moved")
    logged_in = client(*ALL)
    page = logged_in.get(f"{PAGES}{dead.name}/", {"function": "nobody"}).content.decode()
    assert "No letter of the sample matches." in page
    assert 'value="redrive"' in page
    assert 'value="selected"' not in page
    page = logged_in.get(f"{PAGES}{dead.name}/", {"function": "fail"}).content.decode()
    assert "3 of 4" in page
    assert 'value="selected"' in page


def test_a_selection_is_redriven_with_its_retries(dead: Dead) -> None:
    dead.sent_many(3)
    found = dead.open().find("fail-1")
    assert found
    given = {"action": "redrive", "scope": "selected", "ids": found.message_id, "function": "other"}
    done = act(client(*ALL), dead, **given, confirmed="on", reset_attempts="on")
    assert "1 redriven, " in words(done)
    assert dead.ids(dead.source) == ["fail-1"]
    (message,) = dead.source.receive(count=1, wait=0, visibility=30)
    assert "first_attempt" in message.body


def test_all_letters_of_the_page_are_selected_with_one_box(dead: Dead) -> None:
    dead.sent_many(3)
    logged_in = client(*ALL)
    html = logged_in.get(f"{PAGES}{dead.name}/", {"sample": "2"}).content.decode()
    every = re.findall('name="every" value="([^"]+)"', html)
    given = {"action": "redrive", "scope": "selected", "every": every}
    assert "2 selected letters" in words(act(logged_in, dead, **given))
    assert "2 redriven, " in words(act(logged_in, dead, **given, confirmed="on"))
    assert len(dead.ids()) == 1


def test_a_discard_needs_the_name_of_the_queue(dead: Dead) -> None:
    dead.sent_many(2)
    logged_in = client(*ALL)
    given = {"action": "discard", "scope": "all"}
    asked = act(logged_in, dead, **given, confirmed="on", name="other")
    assert "This is not the name of the queue." in words(asked)
    assert len(dead.ids()) == 2
    done = words(act(logged_in, dead, **given, confirmed="on", name=dead.name))
    assert "2 discarded, 2 looked at, 0 stay." in done
    assert dead.ids() == []
    assert LogEntry.objects.get().is_deletion()
    assert "Discarded: all letters. Done: 2." in LogEntry.objects.get().change_message


def test_without_a_selection_nothing_is_done(dead: Dead) -> None:
    dead.sent_many(1)
    logged_in = client(*ALL)
    given = {"action": "redrive", "scope": "selected", "confirmed": "on"}
    page = logged_in.post(f"{PAGES}{dead.name}/act/", given, follow=True)
    assert "No letter is selected." in page.content.decode()
    assert dead.ids() == ["fail-0"]
    assert not LogEntry.objects.exists()


def test_letters_that_stay_are_listed_with_their_reason(dead: Dead) -> None:
    dead.sent(queue="elsewhere")
    done = words(act(client(*ALL), dead, action="redrive", scope="all", confirmed="on"))
    assert "fail-0: its queue elsewhere has no redrive policy" in done


def test_an_action_that_ends_early_says_why(dead: Dead, spoilt: Proxy) -> None:
    dead.sent_many(1)
    spoilt.spoil = failing("SendMessage", status=403)
    done = act(client(*ALL), dead, action="redrive", scope="all", confirmed="on")
    assert "the permission sqs:SendMessage is missing" in words(done)
    assert "Ended early: SendMessage" in LogEntry.objects.get().change_message


def test_an_action_on_a_source_queue_is_refused(dead: Dead) -> None:
    page = client(*ALL).post(
        f"{PAGES}jobs/act/",
        {"action": "discard", "scope": "all", "confirmed": "on", "name": "jobs"},
    )
    assert f"its dead-letter queue is {dead.name}" in words(page)


def test_an_error_in_the_middle_is_shown(dead: Dead, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise SendError("SQS says no")

    def redrive(self: DeadLetterQueue, *arguments: Any, **options: Any) -> Any:
        yield from fail()

    monkeypatch.setattr(DeadLetterQueue, "redrive", redrive)
    done = act(client(*ALL), dead, action="redrive", scope="all", confirmed="on")
    assert "It has ended early: SQS says no" in words(done)


def test_a_closed_page_ends_the_run_and_leaves_nothing_hidden(dead: Dead) -> None:
    dead.sent_many(12)
    response = act(client(*ALL), dead, action="redrive", scope="all", confirmed="on")
    steps = iter(response.streaming_content)
    next(steps)
    response.close()
    assert len(dead.ids()) + len(dead.ids(dead.source)) == 12
    assert "Done: " in LogEntry.objects.get().change_message


@pytest.mark.django_db(transaction=True)
def test_under_asgi_the_page_grows_too(dead: Dead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STEP_SECONDS", 0)
    dead.sent_many(12)
    asgi = AsyncClient()
    client(*ALL)
    asgi.force_login(User.objects.get())

    async def post() -> list[bytes]:
        given = {"action": "redrive", "scope": "all", "confirmed": "on"}
        response = await asgi.post(f"{PAGES}{dead.name}/act/", given)
        return [chunk async for chunk in response.streaming_content]  # type: ignore[attr-defined]

    chunks = async_to_sync(post)()
    assert len(chunks) > 3
    assert b"12 redriven, 12 looked at, 0 stay." in b"".join(chunks)
    assert "Done: 12." in LogEntry.objects.get().change_message


# --- who may do what -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "statuses"),
    [
        (("view_deadletter", "redrive_deadletter"), (200, 403)),
        (("view_deadletter", "delete_deadletter"), (403, 200)),
        (("redrive_deadletter", "delete_deadletter"), (403, 403)),
    ],
)
def test_to_redrive_and_to_delete_are_permissions_apart(
    dead: Dead, permissions: tuple[str, ...], statuses: tuple[int, int]
) -> None:
    dead.sent_many(1)
    logged_in = client(*permissions)
    found = [
        act(logged_in, dead, action=action, scope="all").status_code
        for action in ("redrive", "discard")
    ]
    assert tuple(found) == statuses


def test_an_action_is_a_post_with_a_token(dead: Dead) -> None:
    logged_in = client(*ALL)
    assert logged_in.get(f"{PAGES}{dead.name}/act/").status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    response = act(strict, dead, action="discard", scope="all", confirmed="on", name=dead.name)
    assert response.status_code == 403


# --- other sites -----------------------------------------------------------------------------


def test_a_second_site_has_links_to_itself(dead: Dead) -> None:
    dead.sent_many(1)
    logged_in = client(*ALL)
    for page in ("", f"{dead.name}/", f"{dead.name}/letter/fail-0/"):
        response = logged_in.get(f"/second/beanstalk_workbench/deadletter/{page}")
        content = response.content.decode()
        assert "/second/beanstalk_workbench/deadletter/" in content
        assert "/admin/beanstalk_workbench" not in content


def test_a_queue_may_have_a_name_that_a_url_has_to_quote(
    dead: Dead, sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name}_5Fb")
    logged_in = client("view_deadletter")
    (address,) = re.findall(
        r'href="([^"]+_5F5Fb-dead-letter/)"', logged_in.get(PAGES).content.decode()
    )
    page = logged_in.get(address).content.decode()
    assert f"{queue_name}_5Fb-dead-letter" in page
    assert "sample of 0 of about 0" in page
