"""How much is received ahead, as tables. That it is received at all: tests/integration/worker."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from beanstalk_dispatch.consumers.poller.options import WorkerOptions, WorkerTimes
from beanstalk_dispatch.consumers.poller.prefetch import Prefetch
from beanstalk_dispatch.consumers.poller.queue_state import MessageGroup, QueueState, ReceivePermit
from tests.workers import messages, until


def should_receive(prefetch: Prefetch, queue: QueueState) -> bool:
    return prefetch._should_receive(queue, prefetch._has_idle_thread(), prefetch._room_left())


class OneQueue(Prefetch):
    """The prefetch of one queue in a given state."""

    def __init__(
        self,
        *,
        running: int = 0,
        waiting: int = 0,
        own_waiting: int = 0,
        average: float = math.inf,
        ended: float = 0.0,
        open_receives: int = 0,
        is_busy: bool = False,
        **options: Any,
    ) -> None:
        worker_options = WorkerOptions(**options)
        super().__init__(worker_options)
        self.queue = QueueState.create("jobs", worker_options)
        self.counters.running, self.counters.waiting = running, waiting + own_waiting
        self.queue.waiting.extend(
            MessageGroup(queue=self.queue, messages=[each], received_at=0.0)
            for each in messages(own_waiting)
        )
        self._average_seconds, self._last_ended_at = average, time.monotonic() - ended
        self.queue.is_busy = True
        for _ in range(open_receives):
            self._expected[self.permit()] = 10
        self.queue.is_busy = is_busy

    def requested(self) -> int | None:
        """How many messages the next receive asks for; None if there is to be none."""
        return self.permit().count if should_receive(self, self.queue) else None

    def permit(self) -> ReceivePermit:
        return self._give_permit(self.queue)


BUSY: dict[str, Any] = {"running": 10, "average": 0.01, "open_receives": 1, "is_busy": True}


@pytest.mark.parametrize(
    ("state", "requested"),
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
        ({"running": 10, "average": 11.0}, None),
        # while tasks are slow, a queue has a message for its turn
        ({"running": 10, "average": 2.0}, 5),
        ({"running": 10, "average": 2.0, "waiting": 5}, 1),
        ({"running": 10, "average": 2.0, "waiting": 5, "is_busy": True}, None),
        ({"running": 10, "average": 2.0, "own_waiting": 1}, None),
        ({"running": 9, "average": 2.0}, 6),
        ({"threads": 1, "average": 6.0}, 1),
        ({"running": 10, "average": 0.01, "waiting": 35}, None),
        # a second receive, if it can be full
        (BUSY, 10),
        (BUSY | {"is_busy": False}, None),
        (BUSY | {"open_receives": 4}, None),
        (BUSY | {"waiting": 25}, None),
        # no more than may start
        ({"max_tasks": 4}, 4),
        ({"max_tasks": 4, "waiting": 4}, None),
    ],
)
def test_no_more_is_asked_for_than_can_start_soon(
    state: dict[str, Any], requested: int | None
) -> None:
    assert OneQueue(**state).requested() == requested


@pytest.mark.parametrize(
    ("state", "wait"), [({}, 5), ({"burst": True}, 1), (BUSY, 1), (BUSY | {"wait": 0}, 0)]
)
def test_only_the_first_receive_waits_for_long(state: dict[str, Any], wait: int) -> None:
    assert OneQueue(**state).permit().wait == wait


@pytest.mark.parametrize(("brought", "is_busy"), [(10, True), (6, True), (5, False), (0, False)])
def test_a_receive_that_brings_most_of_what_it_asks_for_allows_others(
    brought: int, is_busy: bool
) -> None:
    """SQS seldom fills an answer, even of a long queue."""
    prefetch = OneQueue()
    prefetch.add(prefetch.permit(), messages(brought))
    assert prefetch.queue.is_busy is is_busy
    assert prefetch.is_empty(prefetch.queue) is (brought == 0)


def test_an_empty_answer_to_a_receive_that_is_older_than_the_last_task_means_nothing() -> None:
    prefetch = OneQueue()
    older, newer = prefetch.permit(), prefetch.permit()
    prefetch.add(newer, messages(1))
    prefetch.add(older, [])
    assert prefetch.queue.in_flight.messages, "no burst ends before this message"
    assert prefetch.next()
    prefetch.task_ended(0.1, is_done=False)
    assert not prefetch.is_empty(prefetch.queue), "it may be visible again"


def test_an_empty_answer_means_nothing_if_a_task_has_ended_since_the_receive_began() -> None:
    """The task may have sent its retry."""
    prefetch = OneQueue(running=1)
    prefetch.add(prefetch.permit(), [])
    assert prefetch.is_empty(prefetch.queue)
    prefetch.task_ended(0.1, is_done=True)
    assert not prefetch.is_empty(prefetch.queue)
    prefetch.add(prefetch.permit(), [])
    assert prefetch.is_empty(prefetch.queue)


def test_a_failed_receive_is_no_answer() -> None:
    prefetch = OneQueue()
    first, second = prefetch.permit(), prefetch.permit()
    prefetch.add(first, None)
    assert prefetch.queue.unanswered_since == first.since
    prefetch.add(second, [])
    assert prefetch.queue.unanswered_since == math.inf


def test_while_other_receives_are_open_the_queue_is_unanswered_since_the_last_answer() -> None:
    prefetch = OneQueue()
    first, _ = prefetch.permit(), prefetch.permit()
    prefetch.add(first, [])
    assert first.since < prefetch.queue.unanswered_since < math.inf


def test_a_message_that_is_in_flight_already_is_not_run_again() -> None:
    prefetch = OneQueue()
    prefetch.add(prefetch.permit(), messages(3))
    prefetch.add(prefetch.permit(), messages(3))
    assert prefetch.counters.waiting == 3


def test_while_a_group_is_in_flight_an_empty_answer_means_nothing() -> None:
    prefetch = OneQueue()
    prefetch.add(prefetch.permit(), messages(1, group="a"))
    prefetch.add(prefetch.permit(), [])
    assert not prefetch.is_empty(prefetch.queue)


def test_groups_stay_together() -> None:
    prefetch = OneQueue()
    received = messages(3, group="a") + messages(2, group="b")
    prefetch.add(prefetch.permit(), received)
    groups = [prefetch.next(), prefetch.next()]
    assert [len(group.messages) for group in groups if group] == [3, 2]


def test_the_first_task_sets_the_average_and_later_ones_move_it() -> None:
    prefetch = OneQueue()
    prefetch.task_ended(1.0, is_done=True)
    assert prefetch._average_seconds == 1.0
    prefetch.task_ended(2.0, is_done=False)
    assert prefetch._average_seconds == pytest.approx(1.2)
    assert (prefetch.counters.done, prefetch.counters.failed) == (1, 1)


def test_messages_of_a_group_that_were_not_run_do_not_count_as_tasks() -> None:
    prefetch = OneQueue(max_tasks=3)
    prefetch.add(replace(prefetch.permit(), count=3), messages(3, group="a"))
    assert prefetch.next()
    assert prefetch._tasks_left == 0
    assert not prefetch.is_used_up()
    prefetch.group_ended(2)
    assert prefetch._tasks_left == 2
    assert not prefetch.is_used_up()


def test_a_group_with_more_messages_than_may_start_is_not_continued() -> None:
    prefetch = OneQueue(max_tasks=2)
    prefetch.add(replace(prefetch.permit(), count=3), messages(3, group="a"))
    assert prefetch.next()
    assert not prefetch.may_continue_group()


@pytest.mark.parametrize(("requeue_after", "waiting"), [(5.0, 3), (0.0, 0)])
def test_messages_that_wait_for_too_long_are_requeued(requeue_after: float, waiting: int) -> None:
    prefetch = OneQueue(times=WorkerTimes(requeue_after=requeue_after))
    prefetch.add(prefetch.permit(), messages(3))
    prefetch.requeue_expired()
    assert prefetch.counters.waiting == waiting
    assert prefetch.queue.in_flight.pending == 3 - waiting


def test_a_message_that_was_received_before_is_kept_however_long_it_waits() -> None:
    prefetch = OneQueue(times=WorkerTimes(requeue_after=0.0))
    prefetch.add(prefetch.permit(), messages(1) + messages(3, receive_count=2)[1:])
    prefetch.requeue_expired()
    assert prefetch.counters.waiting == 2
    assert prefetch.queue.in_flight.pending == 1


def test_after_a_message_was_requeued_unrun_nothing_is_received_ahead_for_a_minute() -> None:
    prefetch = OneQueue(running=8, average=0.01, times=WorkerTimes(requeue_after=0.0))
    prefetch.add(prefetch.permit(), messages(1))
    assert prefetch._room_left() > 10
    prefetch.requeue_expired()
    assert prefetch._room_left() == 2
    prefetch._no_prefetch_until -= 60
    assert prefetch._room_left() > 10


def test_a_queue_with_an_interrupted_group_is_asked_for_one_message() -> None:
    prefetch = OneQueue()
    prefetch.queue.in_flight.nack(messages(1, group="a")[0], 0)
    assert prefetch.requested() == 1


def test_after_a_failure_one_receive_at_a_time_finds_out_whether_it_is_over() -> None:
    prefetch = OneQueue(running=9, average=0.01)
    hanging = prefetch.permit()
    prefetch.queue.is_busy = True
    prefetch.queue.receive_backoff.failed("unreachable", started=hanging.since)
    assert should_receive(prefetch, prefetch.queue)
    probe = prefetch.permit()
    assert not should_receive(prefetch, prefetch.queue)
    prefetch.add(hanging, None)
    assert not should_receive(prefetch, prefetch.queue)
    prefetch.add(probe, None)
    assert should_receive(prefetch, prefetch.queue)


def test_a_long_poll_of_an_idle_queue_leaves_others_their_room() -> None:
    prefetch = OneQueue()
    other = QueueState.create("other", WorkerOptions())
    prefetch.permit()
    assert prefetch._give_permit(other).count == 10


def test_a_receive_of_a_busy_queue_counts_in_what_others_may_ask_for() -> None:
    prefetch = OneQueue(is_busy=True)
    other = QueueState.create("other", WorkerOptions())
    busy = prefetch.permit()
    assert (busy.count, busy.wait) == (10, 1)  # it is expected to return at once
    assert not should_receive(prefetch, other)
    prefetch.add(busy, None)
    assert should_receive(prefetch, other)


def test_a_receive_that_is_not_answered_soon_holds_up_no_other_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prefetch = OneQueue(is_busy=True)
    other = QueueState.create("other", WorkerOptions())
    late = prefetch.permit()
    prefetch.requeue_expired()
    assert not should_receive(prefetch, other)
    monkeypatch.setattr("beanstalk_dispatch.consumers.poller.prefetch._ANSWER_SECONDS", 0.0)
    prefetch.requeue_expired()
    assert should_receive(prefetch, other)
    prefetch.add(late, messages(10))
    assert not prefetch._expected
    assert prefetch.counters.waiting == 10


def test_of_several_queues_that_wait_for_room_one_at_a_time_is_woken() -> None:
    prefetch = OneQueue(running=10)
    queues = [QueueState.create(str(number), WorkerOptions()) for number in range(3)]
    for queue in queues:
        queue.is_busy = True
    permits: list[ReceivePermit | None] = []
    threads = [
        threading.Thread(
            target=lambda each=queue: permits.append(prefetch.acquire(each)), daemon=True
        )
        for queue in queues
    ]
    for number, thread in enumerate(threads):
        thread.start()
        until(lambda: len(prefetch._waiting_receivers) > number)  # noqa: B023
    prefetch.counters.running = 1
    prefetch.group_ended(0)
    threads[0].join(10)
    assert [permit and permit.queue for permit in permits] == queues[:1]
    prefetch.close()
    for thread in threads:
        thread.join(10)
    assert permits[1:] == [None, None]


def test_queues_take_turns() -> None:
    prefetch = OneQueue()
    flooded, quiet = prefetch.queue, QueueState.create("quiet", WorkerOptions())
    prefetch.add(prefetch.permit(), messages(4))
    taken = [prefetch.next()]
    prefetch.add(prefetch._give_permit(quiet), messages(2))
    taken += [prefetch.next() for _ in range(4)]
    queues = [group and group.queue for group in taken]
    assert queues == [flooded, quiet, flooded, quiet, flooded]


def test_a_queue_whose_message_was_taken_is_asked_for_its_next_turn() -> None:
    prefetch = OneQueue(threads=4, running=3, average=3.0, ended=-100)
    quiet = QueueState.create("quiet", WorkerOptions())
    prefetch.add(prefetch._give_permit(quiet), messages(1))
    permits: list[ReceivePermit | None] = []
    thread = threading.Thread(target=lambda: permits.append(prefetch.acquire(quiet)), daemon=True)
    thread.start()
    until(lambda: quiet in prefetch._waiting_receivers)
    prefetch.add(prefetch.permit(), messages(3)[1:])
    assert prefetch.next() is not None
    assert prefetch._room_left() < 0
    thread.join(10)
    assert [permit and permit.count for permit in permits] == [1]


def test_once_closed_nothing_starts_and_all_is_requeued() -> None:
    prefetch = OneQueue()
    before, after = prefetch.permit(), prefetch.permit()
    prefetch.add(before, messages(2))
    prefetch.close()
    prefetch.add(after, messages(5)[2:])
    assert prefetch.next() is None
    assert prefetch.acquire(prefetch.queue) is None
    assert prefetch.counters.waiting == 0
    assert prefetch.queue.in_flight.pending == 5
