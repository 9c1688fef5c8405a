from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command

from beanstalk_dispatch.dead_letters.terminal import Stop
from beanstalk_dispatch.exceptions import LeaseUnavailable
from beanstalk_dispatch.management.commands import beanstalk_queues
from beanstalk_dispatch.queues import running
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.dead_letters import failing
from tests.entries import add_entry
from tests.proxy import Proxy


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("beanstalk_queues", *arguments, stdout=out, **options)
    return out.getvalue()


def test_the_queues_are_a_table(sqs_env: Environment, queue_name: str) -> None:
    open_queue("jobs").send("{}", {})
    lines = [re.split(r"  +", line) for line in show().splitlines()]
    assert lines == [
        ["QUEUE", "VISIBLE", "IN FLIGHT", "DELAYED", "HIDES", "KEEPS", "DEAD-LETTER QUEUE"],
        [f"jobs ({queue_name})", "1", "0", "0", "5m", "4d",
         f"{queue_name}-dead-letter after 10 receives"],
        [f"{queue_name}-dead-letter", "0", "0", "0", "30s", "4d", f"is that of {queue_name}"],
    ]  # fmt: skip


def test_the_packages_own_dead_letter_queue_is_named_as_such(
    sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"dead={queue_name}-own", DISPATCH_DEAD_LETTER_QUEUE="dead")
    queue = open_queue("dead")
    queue.client.set_queue_attributes(QueueUrl=queue.url, Attributes={"RedrivePolicy": ""})
    assert show().splitlines()[1].endswith("is that of BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE")
    sqs_env(DISPATCH_DEAD_LETTER_QUEUE=None)
    assert show().splitlines()[1].endswith("4d     none")


def test_a_dead_letter_queue_with_letters_is_red(sqs_env: Environment, queue_name: str) -> None:
    assert open_queue("jobs").name
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} dead={queue_name}-dead-letter")
    open_queue("dead").send("{}", {})
    lines = show(force_color=True).splitlines()
    assert ["\x1b[" in line for line in lines] == [True, False, True]


def test_the_queues_are_json(sqs_env: Environment, queue_name: str) -> None:
    jobs, dead = json.loads(show("--json"))
    assert (jobs["alias"], jobs["visible"], jobs["max_receives"]) == ("jobs", 0, 10)
    assert (dead["alias"], dead["is_dead_letter_queue"], dead["sources"]) == (
        None, True, [queue_name],
    )  # fmt: skip


def test_a_queue_that_cannot_be_shown_is_an_error(sqs_env: Environment, proxy: Proxy) -> None:
    assert open_queue("jobs").name
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = failing("GetQueueAttributes", status=403)
    problems = io.StringIO()
    with pytest.raises(CommandError, match="not every queue can be shown"):
        show("jobs", stderr=problems)
    assert "the permission sqs:GetQueueAttributes is missing" in problems.getvalue()


def test_without_any_queue_there_is_nothing_to_show(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES=None)
    with pytest.raises(CommandError, match="name a queue, or set BEANSTALK_DISPATCH_QUEUES"):
        show()


def test_an_error_is_one_sentence(sqs_env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    from beanstalk_dispatch.exceptions import SendError

    def fail(names: object) -> None:
        raise SendError("SQS says no")

    monkeypatch.setattr(beanstalk_queues, "queue_statuses", fail)
    with pytest.raises(CommandError, match="SQS says no"):
        show()


def test_a_watch_shows_the_queues_until_the_end(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = iter([False, True])
    monkeypatch.setattr(beanstalk_queues, "_wait_or_stop", lambda seconds, stop: next(waits))
    out = Terminal()
    call_command("beanstalk_queues", "--watch", stdout=out)
    assert out.getvalue().count("\x1b[H\x1b[J") == 2
    waits = iter([False, True])
    assert len(show("--watch", "--json", "--interval", "5").splitlines()) == 2


def test_a_wait_is_over_after_its_time_or_at_the_end() -> None:
    stop = Stop()
    assert not beanstalk_queues._wait_or_stop(0.01, stop)
    stop.is_asked = True
    started = time.monotonic()
    assert beanstalk_queues._wait_or_stop(60, stop)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("seconds", ["0", "x", "nan", "3601"])
def test_a_wrong_interval_is_refused(seconds: str) -> None:
    with pytest.raises(CommandError, match="expected 1 to 3600 seconds"):
        show("--interval", seconds)


# --- what runs now ---


def test_what_runs_now_is_three_tables(
    lease_env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(running, "CRON_FILE", tmp_path / "cron.yaml")
    add_entry("one", tasks={"task-1": 3.0})
    add_entry("two", ago=90, tasks={"task-2": 1.0})
    assert [re.split(r"  +", line) for line in show("--running").splitlines()] == [
        ["MACHINE", "PROCESS", "CONSUMER", "QUEUES", "RUNNING", "VERSION", "UP", "SEEN"],
        ["one", "7", "poller", "jobs", "1 of 4", "1.1.0", "1h", "0s ago"],
        ["two", "7", "poller", "jobs", "1 of 4", "1.1.0", "1h", "1m 30s ago: killed, or it hangs"],
        [""],
        ["AGE", "FUNCTION", "ATTEMPT", "PROGRESS", "QUEUE", "MACHINE", "PROCESS", "TASK ID"],
        ["1m 31s ?", "record", "1", "-", "jobs", "two", "7", "task-2"],
        ["3s", "record", "1", "-", "jobs", "one", "7", "task-1"],
    ]
    lines = show("--running", "other", force_color=True).splitlines()
    assert ["\x1b[31" in line for line in lines] == [False, False, True, False, False]
    running.CRON_FILE.write_text("x")
    add_entry("one", next_runs=[["clean_up", 4e9]])
    problems = io.StringIO()
    lines = show("--running", stderr=problems).splitlines()
    assert lines[-2].split() == ["PERIODIC", "TASK", "NEXT", "RUN", "AT"]
    assert lines[-1].startswith("clean_up")
    assert "expected 'version: 1'" in problems.getvalue()
    with monkeypatch.context() as patch:
        patch.setattr(running, "MAX_TASKS", 1)
        assert "… and 1 more" in show("--running", stderr=problems)
    (found,) = show("--running", "--json").splitlines()
    assert [each["id"] for each in json.loads(found)["running"]] == ["task-2", "task-1"]


def test_what_runs_now_is_not_known_without_a_cache(
    lease_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(names: object) -> None:
        raise LeaseUnavailable("ConnectionError of cache 'default'")

    with monkeypatch.context() as patch:
        patch.setattr(beanstalk_queues, "what_runs", fail)
        with pytest.raises(CommandError, match="ConnectionError of cache 'default'"):
            show("--running")
    lease_env(DISPATCH_LEASE_CACHE=None)
    with pytest.raises(CommandError, match="BEANSTALK_DISPATCH_LEASE_CACHE is not set"):
        show("--running")


# --- pause ---


def test_a_queue_is_paused_and_resumed(lease_env: Environment, queue_name: str) -> None:
    words = f"{queue_name} has been paused for 0s; --resume ends that"
    assert show("jobs", "--pause").splitlines()[-1] == words
    assert show().splitlines()[-1] == words
    assert json.loads(show("--json"))[0]["paused_since"] == pytest.approx(time.time(), abs=30)
    assert "paused" not in show("jobs", "--resume")
    assert json.loads(show("--json"))[0]["paused_since"] is None


def test_a_pause_says_what_it_does_not_reach(
    lease_env: Environment, capsys: pytest.CaptureFixture[str], queue_name: str
) -> None:
    lease_env(DISPATCH_QUEUES=f"order={queue_name}.fifo")
    show("order", "--pause")
    assert "only beanstalk_worker pauses it" in capsys.readouterr().err


def test_what_cannot_be_paused_is_a_command_error(
    lease_env: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*args: Any) -> None:
        raise ConnectionError

    with pytest.raises(CommandError, match="name the queues to pause or resume"):
        show("--pause")
    with pytest.raises(CommandError, match="'unknown' is neither in"):
        show("unknown", "--resume")
    with monkeypatch.context() as patch:  # what SQS knows is shown all the same
        patch.setattr(caches["default"], "get_many", away)
        assert "jobs" in show()
    assert capsys.readouterr().err.count("not known which queues are paused: ConnectionError") == 1
    lease_env(DISPATCH_LEASE_CACHE="gone")
    assert json.loads(show("--json"))[0]["pause_problem"].startswith("BEANSTALK_DISPATCH_LEASE")
    lease_env(DISPATCH_LEASE_CACHE=None)
    with pytest.raises(CommandError, match="LEASE_CACHE is not set: a queue is paused by an entry"):
        show("jobs", "--pause")
