from __future__ import annotations

from typing import Any

import pytest

from beanstalk_dispatch.dead_letters import move_task
from beanstalk_dispatch.dead_letters.dead_letter import Filters
from beanstalk_dispatch.dead_letters.queue import DeadLetterQueue
from beanstalk_dispatch.dead_letters.sweep import SweepOptions
from tests.conftest import Environment
from tests.dead_letters import Dead
from tests.proxy import Proxy, error
from tests.unit.dead_letters.test_queue import finish

# No server that runs on a laptop has these operations, so the proxy answers in SQS's place.
START, LIST, CANCEL = "StartMessageMoveTask", "ListMessageMoveTasks", "CancelMessageMoveTask"


class Moves:
    """Answers the requests of a move; each ``statuses`` is the answer to one question."""

    def __init__(self, *statuses: Any) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._statuses = list(statuses)

    def __call__(self, operation: str, request: dict[str, Any]) -> Any:
        if operation not in {START, LIST, CANCEL}:
            return None
        self.requests.append((operation, request))
        if operation == START:
            return 200, {"TaskHandle": "handle"}
        if operation == CANCEL:
            return 200, {}
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        if isinstance(status, int):
            return error(status, "InternalError")
        return 200, {"Results": [status] if status else []}

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.requests]


def status(name: str, moved: int, **more: Any) -> dict[str, Any]:
    return {
        "Status": name, "ApproximateNumberOfMessagesMoved": moved,
        "ApproximateNumberOfMessagesToMove": 5,
    } | more  # fmt: skip


def test_where_nothing_is_filtered_sqs_moves_the_letters(dead: Dead, spoilt: Proxy) -> None:
    dead.moved()
    moves = Moves(status("RUNNING", 2), status("COMPLETED", 5))
    spoilt.spoil = moves
    counts = [report.done for report in dead.open().redrive(options=SweepOptions(rate=7.5))]
    assert sorted(set(counts)) == [0, 2, 5]
    assert moves.operations() == [START, LIST, LIST]
    assert moves.requests[0][1]["SourceArn"].endswith(f":{dead.name}")
    assert moves.requests[0][1]["MaxNumberOfMessagesPerSecond"] == 7


def test_the_report_says_that_sqs_moves_them(dead: Dead, spoilt: Proxy) -> None:
    dead.moved()
    spoilt.spoil = Moves(status("COMPLETED", 9))
    report = finish(dead.open().redrive())
    assert (report.by_sqs, report.done, report.about, report.is_complete) == (True, 9, 9, True)


def test_a_move_that_is_closed_is_cancelled(dead: Dead, spoilt: Proxy) -> None:
    dead.moved()
    moves = Moves(status("RUNNING", 2))
    spoilt.spoil = moves
    steps = dead.open().redrive()
    while next(steps).done < 2:
        pass
    steps.close()
    assert moves.operations()[-1] == CANCEL
    assert moves.requests[-1][1] == {"TaskHandle": "handle"}


def test_a_move_that_somebody_cancels_ends_the_run(dead: Dead, spoilt: Proxy) -> None:
    dead.moved(id="moved")
    spoilt.spoil = Moves(status("CANCELLED", 2))
    report = finish(dead.open().redrive())
    assert (report.error, report.done) == ("the move was cancelled", 2)
    assert dead.ids() == ["moved"]


@pytest.mark.parametrize(
    ("more", "note"),
    [({"FailureReason": "CouldNotDetermineMessageSource"}, "CouldNotDetermine"), ({}, "no more")],
)
def test_what_sqs_cannot_move_goes_message_by_message(
    dead: Dead, spoilt: Proxy, more: dict[str, str], note: str
) -> None:
    dead.moved(id="moved")
    spoilt.spoil = Moves(status("FAILED", 2, **more))
    report = finish(dead.open().redrive())
    assert note in report.note
    assert (report.done, report.by_sqs, report.is_complete) == (3, False, True)
    assert dead.ids(dead.source) == ["moved"]


def test_a_server_without_moves_gets_the_letters_one_by_one(dead: Dead) -> None:
    dead.moved(id="moved")
    report = finish(dead.open().redrive())
    assert "StartMessageMoveTask on" in report.note
    assert (report.done, report.is_complete) == (1, True)


def test_a_question_without_an_answer_is_asked_again(dead: Dead, spoilt: Proxy) -> None:
    dead.moved()
    spoilt.spoil = Moves(500, 500, 500, status("COMPLETED", 5))
    reports = [report.waiting_for for report in dead.open().redrive()]
    assert any("ListMessageMoveTasks on" in each for each in reports)
    assert reports[-1] == ""


def test_a_move_that_nobody_answers_for_is_cancelled(
    dead: Dead, spoilt: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead.moved()
    monkeypatch.setattr(move_task, "MAX_FAILED_POLLS", 1)
    moves = Moves(500, None)
    spoilt.spoil = moves
    report = finish(dead.open().redrive())
    assert report.error.startswith("cancelling the move: ListMessageMoveTasks on")
    assert report.error.endswith("SQS lists no task")
    assert moves.operations()[-1] == CANCEL


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": Filters(functions=frozenset({"record"}))},
        {"options": SweepOptions(limit=5)},
        {"options": SweepOptions(dry_run=True)},
        {"reset_attempts": True},
        {"to": "jobs"},
    ],
)
def test_sqs_cannot_do_what_is_asked_for_otherwise(
    dead: Dead, spoilt: Proxy, arguments: dict[str, Any]
) -> None:
    moves = Moves()
    spoilt.spoil = moves
    finish(dead.open().redrive(**arguments))
    assert moves.requests == []


def test_sqs_does_not_know_where_a_dead_letter_of_the_package_came_from(
    dead: Dead, spoilt: Proxy
) -> None:
    moves = Moves()
    spoilt.spoil = moves
    dead.sent()
    finish(dead.open().redrive())
    assert moves.requests == []


def test_a_queue_that_the_package_writes_to_is_not_moved_by_sqs(
    dead: Dead, spoilt: Proxy, sqs_env: Environment
) -> None:
    moves = Moves()
    spoilt.spoil = moves
    sqs_env(DISPATCH_QUEUES=None, DISPATCH_DEAD_LETTER_QUEUE=dead.name)
    finish(DeadLetterQueue.open(dead.name).redrive())
    assert moves.requests == []


def test_without_the_permission_to_look_sqs_is_not_asked(dead: Dead, spoilt: Proxy) -> None:
    dead_letters = dead.open()
    moves = Moves()
    spoilt.spoil = lambda operation, request: (
        error(403, "AccessDenied") if operation == "ReceiveMessage" else moves(operation, request)
    )
    report = finish(dead_letters.redrive())
    assert "the permission sqs:ReceiveMessage is missing" in report.error
    assert moves.requests == []
