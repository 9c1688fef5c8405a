from __future__ import annotations

import linecache
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

import pytest

from beanstalk_dispatch.client import Call, schedule, schedule_function
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs import joined_sends
from beanstalk_dispatch.sqs.batch_sender import BatchEntry
from beanstalk_dispatch.sqs.joined_sends import MAX_OPEN, WAITED, JoinedSends
from beanstalk_dispatch.sqs.opening import open_queue
from tests.proxy import Answer, Proxy, error
from tests.recording_sqs import Sqs, body_of, label
from tests.services import in_child
from tests.workers import until

Outcome = str | BaseException


class Service:
    """Takes messages once its gate is open, and notes what each request had."""

    def __init__(self, *, time_limit: float = 100.0) -> None:
        self.requests: list[list[str]] = []
        self.waits: list[float] = []
        self.gate = self.batch_gate = threading.Event()
        self.refuses: Callable[[str], Any] = lambda body: f"id of {body}"
        """The answer for a message of a batch."""
        self.joined = JoinedSends(alone=self._alone, together=self._together, time_limit=time_limit)
        self.outcomes: dict[str, Outcome] = {}
        self._threads: list[threading.Thread] = []

    def _alone(self, body: str, send_parameters: Mapping[str, Any]) -> str:
        self.requests.append([body])
        self.waits.append(WAITED.get())
        assert self.gate.wait(30)
        return f"id of {body}"

    def _together(self, entries: Sequence[BatchEntry]) -> list[Any]:
        self.requests.append([entry.body for entry in entries])
        self.waits.append(WAITED.get())
        assert self.batch_gate.wait(30)
        return [self.refuses(entry.body) for entry in entries]

    def start(self, *bodies: str, inside: Callable[[], object] = int) -> None:
        """Send each message in a thread, one after the other; ``inside`` is called in it first."""

        def send(body: str) -> None:
            inside()
            try:
                self.outcomes[body] = self.joined.send(body, {})
            except BaseException as exc:
                self.outcomes[body] = exc
            finally:
                sys.settrace(None)

        for body in bodies:
            under_way = self.under_way()
            thread = threading.Thread(target=send, args=(body,))
            thread.start()
            self._threads.append(thread)
            until(lambda: self.under_way() > under_way or body in self.outcomes, 30)  # noqa: B023

    def under_way(self) -> int:
        return len(self.joined._open) + len(self.joined._waiting)

    def end(self) -> dict[str, Outcome]:
        """Open the gate, and return what became of each message."""
        self.gate.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)
        assert self.under_way() == 0
        return self.outcomes


def openers() -> list[str]:
    return [f"open {number}" for number in range(MAX_OPEN)]


def waiters(count: int) -> list[str]:
    return [f"waiter {number}" for number in range(count)]


def test_up_to_four_threads_send_by_themselves() -> None:
    service = Service()
    service.start(*openers())
    until(lambda: len(service.requests) == MAX_OPEN, 30)
    assert service.end() == {body: f"id of {body}" for body in openers()}
    assert sorted(service.requests) == [[body] for body in openers()]


def test_those_that_come_while_four_are_open_share_the_next_requests() -> None:
    service = Service()
    service.start(*openers(), *waiters(12))
    found = service.end()
    assert found == {body: f"id of {body}" for body in (*openers(), *waiters(12))}
    assert sorted(map(len, service.requests)) == [1, 1, 1, 1, 2, 10]


def test_one_that_waits_alone_is_sent_by_itself() -> None:
    service = Service()
    service.start(*openers(), "fifth")
    assert service.end()["fifth"] == "id of fifth"
    assert ["fifth"] in service.requests


def test_a_batch_has_at_most_the_bytes_of_a_request() -> None:
    service = Service()
    large = [letter * 600_000 for letter in "xy"]
    service.start(*openers(), *large)
    found = service.end()
    assert [found[body] for body in large] == [f"id of {body}" for body in large]
    assert {len(bodies) for bodies in service.requests} == {1}


def test_the_wait_counts_towards_the_time_limit() -> None:
    service = Service()
    service.start(*openers(), *waiters(2))
    time.sleep(0.05)
    service.end()
    assert service.waits[:MAX_OPEN] == [0.0] * MAX_OPEN
    assert 0.05 <= service.waits[-1] < 30
    assert WAITED.get() == 0.0


def test_one_that_has_waited_for_long_is_sent_by_itself() -> None:
    service = Service(time_limit=0.5)
    service.start(*openers(), "late")
    until(lambda: ["late"] in service.requests, 30)
    assert service.waits[-1] >= 0.05
    assert service.end()["late"] == "id of late"


def test_one_of_whose_batch_nothing_is_heard_fails() -> None:
    service = Service(time_limit=1.0)
    service.batch_gate = threading.Event()
    service.start(*openers(), "leader", "follower")
    service.gate.set()
    until(lambda: "follower" in service.outcomes, 30)
    assert ["leader", "follower"] in service.requests
    assert "no answer came in time" in str(service.outcomes["follower"])
    service.batch_gate.set()
    assert service.end()["leader"] == "id of leader"


def test_an_error_of_a_batch_reaches_exactly_its_callers() -> None:
    service = Service()
    service.refuses = lambda body: SendError(f"no {body}")
    service.start(*openers(), *waiters(3))
    found = service.end()
    assert [str(found[body]) for body in waiters(3)] == [f"no {body}" for body in waiters(3)]
    assert [found[body] for body in openers()] == [f"id of {body}" for body in openers()]


def test_one_that_is_refused_in_a_batch_is_sent_by_itself() -> None:
    service = Service()
    service.refuses = lambda body: None if body == "waiter 1" else f"id of {body}"
    service.start(*openers(), *waiters(3))
    assert service.end()["waiter 1"] == "id of waiter 1"
    assert sorted(service.requests)[-2:] == [waiters(3), ["waiter 1"]]


def test_after_an_error_of_this_package_each_is_sent_by_itself() -> None:
    def fail(body: str) -> None:
        raise ValueError(body)

    service = Service()
    service.refuses = fail
    service.start(*openers(), *waiters(3))
    assert [service.end()[body] for body in waiters(3)] == [f"id of {b}" for b in waiters(3)]


def test_threads_that_ended_without_leaving_are_forgotten() -> None:
    service = Service(time_limit=0.01)
    service.gate.set()
    for _ in range(MAX_OPEN):
        service.joined._enter(joined_sends._Send("lost", {}))
    assert service.joined.send("first", {}) == "id of first"
    time.sleep(0.05)
    assert service.joined.send("next", {}) == "id of next"
    assert service.waits[0] > 0
    assert service.waits[1] == 0.0


class Interrupt(BaseException):
    """As a time limit raises it."""


def interrupt_at(step: int) -> Callable[[], None]:
    """Have this thread interrupted before the line of the module that it runs as that one.

    An interrupt never strikes between the end of a ``with`` block and its exit.
    """
    left = step

    def trace(  # pragma: no cover - it stands in the place of coverage's own
        frame: FrameType, event: str, _: object
    ) -> Any:
        nonlocal left
        if frame.f_code.co_filename != joined_sends.__file__ or frame.f_code.co_name == "__init__":
            return None
        is_with = (
            linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()[:5] == "with "
        )
        left -= event == "line" and not is_with
        if left < 0:
            sys.settrace(None)
            raise Interrupt
        return trace

    return lambda: sys.settrace(trace)


@pytest.mark.parametrize("victim", ["open 1", "waiter 0", "waiter 4"])
def test_an_interrupt_at_any_step_costs_no_other_thread_its_message(victim: str) -> None:
    """Of one that sends at once, of the leader of a batch, and of one in its batch."""
    step = 0
    while True:
        service = Service()
        inside = interrupt_at(step)
        for body in (*openers(), *waiters(5)):
            service.start(body, inside=inside if body == victim else int)
        found = service.end()
        sent = {body for bodies in service.requests for body in bodies}
        for body, outcome in found.items():
            if body != victim:
                assert outcome == f"id of {body}", f"{body} at step {step}"
                assert body in sent
        if not isinstance(found[victim], Interrupt):
            break
        step += 1
    assert step > 10
    assert found[victim] == f"id of {victim}"


def test_what_a_thread_leaves_undone_is_taken_over_by_the_next() -> None:
    joined = Service().joined
    sends = [joined_sends._Send(str(number), {}) for number in range(7)]
    for each in sends:
        joined._enter(each)
    joined._hand_over(sends[0])
    assert sends[4].batch == sends[4:]
    joined._hand_over(sends[4])  # an interrupt has struck its thread
    assert sends[5].batch == sends[5:]
    late = joined_sends._Send("late", {})
    joined._enter(late)
    joined._hand_over(late)
    assert joined._waiting == []
    sends[5].wake()
    assert not sends[5].woken.locked()


def test_the_leader_of_the_next_batch_is_woken_though_an_interrupt_has_struck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(send: joined_sends._Send) -> None:
        raise Interrupt

    joined = Service().joined
    sends = [joined_sends._Send(str(number), {}) for number in range(MAX_OPEN + 1)]
    for each in sends:
        joined._enter(each)
    with monkeypatch.context() as patch:
        patch.setattr(joined_sends._Send, "wake", interrupted)
        with pytest.raises(Interrupt):
            joined._hand_over(sends[0])
    joined._hand_over(sends[0])
    assert not sends[-1].woken.locked()


# --- with requests ---------------------------------------------------------------------------


def schedule_in_threads(count: int) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}

    def schedule(number: int) -> None:
        try:
            found[number] = schedule_function("jobs", "record", number)
        except SendError as exc:
            found[number] = exc

    threads = [threading.Thread(target=schedule, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_a_hundred_threads_send_each_message_once(sqs: Sqs, proxy: Proxy) -> None:
    def answer_late(operation: str, request: dict[str, Any]) -> Answer:
        time.sleep(0.02)
        return sqs(operation, request)

    open_queue("jobs")
    proxy.spoil = answer_late
    found = schedule_in_threads(100)
    assert {label(entry): body_of(entry)["id"] for entry in sqs.entries} == found
    assert len(sqs.entries) == 100
    assert len(sqs.requests) < 80


def test_a_failure_is_raised_in_each_thread(sqs: Sqs) -> None:
    open_queue("jobs")
    sqs.failure = error(403, "AccessDenied")
    found = schedule_in_threads(30)
    assert {type(each) for each in found.values()} == {SendError}
    assert len(set(map(id, found.values()))) == 30
    assert sqs.entries == []


def test_a_fifo_queue_has_a_request_for_each_message(sqs: Sqs, proxy: Proxy) -> None:
    queue = open_queue("fifo")
    for _ in range(MAX_OPEN):
        queue._joined._enter(joined_sends._Send("open", {}))
    schedule("fifo", Call("record", [1], group_id="a"))
    assert sqs.labels == [1]
    assert queue._joined._waiting == []


def test_a_child_forked_in_the_middle_has_sends_of_its_own(sqs: Sqs, proxy: Proxy) -> None:
    is_open, asked = threading.Event(), threading.Semaphore(0)

    def wait(operation: str, request: dict[str, Any]) -> Answer:
        if operation.startswith("SendMessage") and label_of(request) != "child":
            asked.release()
            is_open.wait(30)
        return sqs(operation, request)

    def label_of(request: dict[str, Any]) -> Any:
        return label(request.get("Entries", [request])[0])

    open_queue("jobs")
    proxy.spoil = wait
    threads = [
        threading.Thread(target=schedule_function, args=("jobs", "record", number))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for _ in range(MAX_OPEN):
        asked.acquire()
    until(lambda: len(open_queue("jobs")._joined._waiting) == 4, 30)
    in_child(lambda: isinstance(schedule_function("jobs", "record", "child"), str))
    is_open.set()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, sqs.labels)) == [*map(str, range(8)), "child"]
