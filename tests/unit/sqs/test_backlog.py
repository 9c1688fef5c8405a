from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.sqs import backlog
from beanstalk_dispatch.sqs.backlog import (
    Backlog,
    QueueBacklog,
    SharedBacklog,
    ask,
    wanted_processes,
)
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error
from tests.workers import send, until

KEY = "a-key-of-the-tests"


# --- how many processes ---


@pytest.mark.parametrize(
    ("messages", "threads", "per_thread", "processes"),
    [
        (0, 10, 5, 0),
        (1, 10, 5, 1),
        (50, 10, 5, 1),
        (51, 10, 5, 2),
        (10_000, 10, 5, 200),
        (3, 1, 1, 3),
        (10**9, 10_000, 1_000_000, 1),
    ],
)
def test_wanted_processes(messages: int, threads: int, per_thread: int, processes: int) -> None:
    assert wanted_processes(messages, threads=threads, per_thread=per_thread) == processes


def test_a_message_that_is_received_wants_no_other_process() -> None:
    """The number depends on the messages alone, so that taking them ahead starts no spiral."""
    for in_flight in range(0, 101, 10):
        visible = 100 - in_flight
        assert wanted_processes(visible + in_flight, threads=5, per_thread=2) == 10


# --- asking ---


def test_each_queue_is_asked_once(sqs_env: Environment, proxy: Proxy, queue_name: str) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other")
    send("1", "2", "3")
    open_queue("jobs").receive(count=1, wait=0, visibility=30)
    open_queue("other").send("4", {"DelaySeconds": 600})
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    found = ask(["jobs", "other"], threads=2, per_thread=1)
    assert found.queues == {
        "jobs": QueueBacklog(visible=2, in_flight=1, delayed=0, threads=2, wanted_processes=2),
        "other": QueueBacklog(visible=0, in_flight=0, delayed=1, threads=2, wanted_processes=0),
    }
    assert found.total == QueueBacklog(
        visible=2, in_flight=1, delayed=1, threads=2, wanted_processes=2
    )
    assert proxy.counts["GetQueueAttributes"] == 2


def test_one_queue_that_cannot_be_read_leaves_the_others(
    sqs_env: Environment, proxy: Proxy, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other")
    send("1")
    assert open_queue("other").name
    denied = error(403, "AccessDenied", "arn:aws:sts::123456789012:assumed-role/x may not")

    def spoil(operation: str, request: dict[str, Any]) -> Answer | None:
        is_other = request.get("QueueUrl", "").endswith("-other")
        return denied if operation == "GetQueueAttributes" and is_other else None

    proxy.spoil = spoil
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    found = ask(["jobs", "other"], threads=1, per_thread=1)
    assert found.queues["jobs"].visible == 1
    assert "AccessDenied" in str(found.problems["other"])
    shown = found.as_json()
    assert shown["queues"]["other"] == {
        "problem": "the permission sqs:GetQueueAttributes is missing"
    }
    assert shown["total"] is None
    assert "123456789012" not in str(shown)


COUNTS = {
    "ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": "0",
    "ApproximateNumberOfMessagesDelayed": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"message": "log in first"}, {"Attributes": {}}, {"Attributes": None},
        {"Attributes": COUNTS | {"ApproximateNumberOfMessages": "many"}},
        {"Attributes": COUNTS | {"RedrivePolicy": "{"}},
        {"Attributes": COUNTS | {"RedrivePolicy": "[]"}},
    ],
)  # fmt: skip
def test_an_answer_without_counts_is_a_problem_and_not_an_empty_queue(
    sqs_env: Environment, proxy: Proxy, answer: dict[str, Any]
) -> None:
    assert open_queue("jobs").name
    proxy.spoil = lambda operation, request: (
        (200, answer) if operation == "GetQueueAttributes" else None
    )
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    found = ask(["jobs"], threads=1, per_thread=1)
    assert found.as_json()["queues"] == {"jobs": {"problem": "SQS has not said; see the log"}}
    assert "GetQueueAttributes on tests-" in str(found.problems["jobs"])


def test_no_request_is_begun_once_sqs_takes_too_long(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_ASKING_SECONDS", -1)
    found = ask(["jobs"], threads=1, per_thread=1)
    assert "not asked, because SQS took longer" in str(found.problems["jobs"])


def test_the_dead_letter_queue_has_no_backlog(env: Environment) -> None:
    env(DISPATCH_QUEUES="jobs=jobs dead=dead", DISPATCH_DEAD_LETTER_QUEUE="dead")
    assert get_config().work_queues == ["jobs"]


def test_the_token_is_no_signing_key(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS=f"other-{KEY} {KEY}", DISPATCH_BACKLOG_TOKEN=KEY)
    with pytest.raises(ConfigurationError, match="could then sign messages") as raised:
        get_config()
    assert KEY not in str(raised.value)


# --- one backlog for all threads ---


class Asking:
    """Stands in for ``ask``: counts its calls, and can be held."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, names: list[str], *, threads: int, per_thread: int) -> Backlog:
        self.calls += 1
        assert self.may_answer.wait(20)
        return Backlog(queues={}, problems={}, total=None, asked_at=time.monotonic())


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch, env: Environment) -> Iterator[Asking]:
    env(DISPATCH_QUEUES="jobs=jobs")
    found = Asking()
    monkeypatch.setattr(backlog, "ask", found)
    yield found
    found.may_answer.set()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock by some seconds."""
    offset = 0.0

    def move(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    moved = SimpleNamespace(monotonic=lambda: time.monotonic() + offset)
    monkeypatch.setattr(backlog, "clock", moved)
    return move


def test_two_hundred_readers_at_once_ask_once(
    sqs_env: Environment, proxy: Proxy, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other")
    assert [open_queue(name).name for name in ("jobs", "other")]
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    shared = SharedBacklog()
    start = threading.Barrier(200)

    def read(number: int) -> Backlog | None:
        start.wait(20)
        return shared.read(get_config())

    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(read, range(200)))
    assert found[0] is not None
    assert all(each is found[0] for each in found)
    assert proxy.counts["GetQueueAttributes"] == 2


def test_it_is_asked_for_again_when_it_is_no_longer_fresh(
    asking: Asking, later: Callable[[float], None]
) -> None:
    shared = SharedBacklog()
    first = shared.read(get_config())
    later(9)
    assert shared.read(get_config()) is first
    later(2)
    assert shared.read(get_config()) is not first
    assert asking.calls == 2


def test_many_queues_are_asked_less_often(
    asking: Asking, later: Callable[[float], None], env: Environment
) -> None:
    env(DISPATCH_QUEUES=" ".join(f"q{number}=q{number}" for number in range(1000)))
    shared = SharedBacklog()
    shared.read(get_config())
    later(99)
    shared.read(get_config())
    assert asking.calls == 1
    later(2)
    shared.read(get_config())
    assert asking.calls == 2


def test_while_one_thread_asks_the_others_get_the_last_backlog(
    asking: Asking, later: Callable[[float], None]
) -> None:
    shared = SharedBacklog()
    first = shared.read(get_config())
    later(20)
    asking.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(shared.read, get_config())
        until(lambda: asking.calls == 2)
        assert shared.read(get_config()) is first
        asking.may_answer.set()
        assert reading.result() is not first
    assert asking.calls == 2


def test_an_old_backlog_is_shown_to_nobody(
    asking: Asking, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_WAIT_SECONDS", 0.05)
    shared = SharedBacklog()
    shared.read(get_config())
    later(61)
    asking.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(shared.read, get_config())
        until(lambda: asking.calls == 2)
        assert shared.read(get_config()) is None
        asking.may_answer.set()
        assert reading.result() is not None


def test_another_configuration_has_another_backlog(asking: Asking, env: Environment) -> None:
    shared = SharedBacklog()
    first = shared.read(get_config())
    env(DISPATCH_QUEUES="jobs=others")
    assert shared.read(get_config()) is not first


def test_an_error_of_asking_leaves_the_next_reader_to_ask(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ConfigurationError("told to fail")

    shared = SharedBacklog()
    with monkeypatch.context() as patch:
        patch.setattr(backlog, "ask", fail)
        with pytest.raises(ConfigurationError):
            shared.read(get_config())
    assert shared.read(get_config()) is not None


def test_a_forked_child_needs_no_lock_of_its_parent(asking: Asking) -> None:
    shared = SharedBacklog()
    with shared._asking:
        shared.forget()
        assert shared.read(get_config()) is not None
