"""How much is received ahead, as tables. That it is received at all: test_worker.py."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from beanstalk_dispatch.queue_address import QueueAddress
from beanstalk_dispatch.sqs.queue import Queue, Received
from beanstalk_dispatch.worker import prefetch as intake
from beanstalk_dispatch.worker.prefetch import Intake, Options, Poll, Source


def messages(count: int, *, group: str | None = None) -> list[Received]:
    client: Any = None
    name = "q" if group is None else "q.fifo"
    queue = Queue(QueueAddress(name=name), "http://127.0.0.1:9/1/q", client)
    return [
        Received(
            queue=queue,
            message_id=f"{group}-{number}",
            receipt="receipt",
            body="",
            expires=time.monotonic() + 30,
            attributes={} if group is None else {"MessageGroupId": group},
            message_attributes={},
        )
        for number in range(count)
    ]


class Line(Intake):
    """An intake of one queue in a state of one's choosing."""

    def __init__(
        self,
        *,
        running: int = 0,
        waiting: int = 0,
        average: float = math.inf,
        ended: float = 0.0,
        polls: int = 0,
        is_busy: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(Options(**options))  # fmt: skip
        self.source = Source.named("jobs", 30)
        self.source.polls, self.source.is_busy = polls, is_busy
        self.counters.running, self.counters.waiting = running, waiting
        self._asked = 10 * polls
        self._average, self._ended_at = average, time.monotonic() - ended

    def asks(self) -> int | None:
        return self._poll(self.source).ask if self._is_wanted(self.source) else None


BUSY: dict[str, Any] = {"running": 10, "average": 0.01, "polls": 1, "is_busy": True}


@pytest.mark.parametrize(
    ("state", "asked"),
    [
        ({}, 10),
        ({"threads": 3}, 3),
        ({"threads": 30}, 10),
        ({"running": 8}, 2),
        ({"running": 10}, None),
        ({"running": 8, "waiting": 2}, None),
        # tasks that end soon make room, but not those of long ago
        ({"running": 10, "average": 0.01}, 10),
        ({"running": 10, "average": 0.01, "ended": 2}, None),
        ({"running": 9, "average": 0.01, "ended": 2}, 1),
        ({"running": 10, "average": 2.0}, None),
        ({"running": 9, "average": 2.0}, 6),
        ({"threads": 1, "average": 6.0}, 1),
        ({"running": 10, "average": 0.01, "waiting": 35}, None),
        # a second receive, if it can be full
        (BUSY, 10),
        (BUSY | {"is_busy": False}, None),
        (BUSY | {"polls": 4}, None),
        (BUSY | {"waiting": 25}, None),
        # no more than may start
        ({"max_tasks": 4}, 4),
        ({"max_tasks": 4, "waiting": 4}, None),
    ],
)
def test_no_more_is_asked_for_than_can_start_soon(state: dict[str, Any], asked: int | None) -> None:
    assert Line(**state).asks() == asked


@pytest.mark.parametrize(
    ("state", "wait"), [({}, 20), ({"burst": True}, 1), (BUSY, 1), (BUSY | {"wait": 0}, 0)]
)
def test_only_the_first_receive_waits_for_long(state: dict[str, Any], wait: int) -> None:
    line = Line(**state)
    assert line._poll(line.source).wait == wait


@pytest.mark.parametrize(("brought", "is_busy"), [(10, True), (6, True), (5, False), (0, False)])
def test_a_receive_that_brings_most_of_what_it_asks_for_is_worth_others(
    brought: int, is_busy: bool
) -> None:
    """SQS seldom fills an answer, even of a long queue."""
    line = Line()
    line.put(line.source, line._poll(line.source), messages(brought))
    assert line.source.is_busy is is_busy
    assert line.source.is_empty is (brought == 0)


def test_an_empty_answer_to_an_older_question_says_nothing() -> None:
    line = Line()
    older, newer = line._poll(line.source), line._poll(line.source)
    line.put(line.source, newer, messages(1))
    line.put(line.source, older, [])
    assert not line.source.is_empty


def test_a_queue_is_owed_an_answer_until_one_comes() -> None:
    line = Line()
    first, second = line._poll(line.source), line._poll(line.source)
    line.put(line.source, first, None)
    assert line.source.asking_since == first.since
    line.put(line.source, second, [])
    assert line.source.asking_since == math.inf


def test_while_other_receives_are_open_the_answer_is_owed_from_the_last_one() -> None:
    line = Line()
    first, _ = line._poll(line.source), line._poll(line.source)
    line.put(line.source, first, [])
    assert first.since < line.source.asking_since < math.inf


def test_what_was_held_already_is_not_run_again() -> None:
    line = Line()
    line.put(line.source, line._poll(line.source), messages(3))
    line.put(line.source, line._poll(line.source), messages(3))
    assert line.counters.waiting == 3


def test_a_group_that_is_held_keeps_an_empty_answer_from_telling() -> None:
    line = Line()
    line.put(line.source, line._poll(line.source), messages(1, group="a"))
    line.put(line.source, line._poll(line.source), [])
    assert not line.source.is_empty


def test_groups_stay_together() -> None:
    line = Line()
    received = messages(3, group="a") + messages(2, group="b")
    line.put(line.source, line._poll(line.source), received)
    runs = [line.next(), line.next()]
    assert [len(run.messages) for run in runs if run] == [3, 2]


def test_messages_of_a_group_that_did_not_run_are_no_tasks() -> None:
    line = Line(max_tasks=3)
    line.put(line.source, Poll(3, 1, time.monotonic(), False), messages(3, group="a"))
    assert line.next()
    assert line._left == 0
    assert not line.is_used_up()
    line.ended(2)
    assert line._left == 2
    assert not line.is_used_up()


def test_more_than_may_start_is_not_gone_on_with() -> None:
    line = Line(max_tasks=2)
    line.put(line.source, Poll(3, 1, time.monotonic(), False), messages(3, group="a"))
    assert line.next()
    assert not line.may_go_on()


def test_what_waits_for_too_long_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line()
    line.put(line.source, line._poll(line.source), messages(3))
    line.look()
    assert line.counters.waiting == 3
    monkeypatch.setattr(intake, "_START_WITHIN", 0.0)
    line.look()
    assert (line.counters.waiting, line.source.holdings.owed) == (0, 3)
