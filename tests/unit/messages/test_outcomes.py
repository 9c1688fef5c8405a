"""The table of outcomes: the daemon's contract, written down once more and independently."""

from __future__ import annotations

import json
import logging
from itertools import product
from types import MappingProxyType

import pytest

from beanstalk_dispatch.consumers.endpoint.dispatcher import make_response
from beanstalk_dispatch.messages import outcomes
from beanstalk_dispatch.messages.changed_fields import changed_fields
from beanstalk_dispatch.messages.outcomes import (
    OUTCOMES,
    Consequences,
    Outcome,
    Result,
    Settle,
    Successor,
)

EXPECTED = {
    Outcome.DONE: (200, "INFO", False),
    Outcome.RETRY: (503, "INFO", False),
    Outcome.DEFERRED: (503, "INFO", False),
    Outcome.DUPLICATE: (200, "INFO", False),
    Outcome.CANCELLED: (200, "INFO", False),
    Outcome.EXPIRED: (200, "INFO", False),
    Outcome.MALFORMED: (400, "ERROR", True),
    Outcome.UNKNOWN_FUNCTION: (400, "ERROR", True),
    Outcome.BAD_SIGNATURE: (403, "ERROR", True),
    Outcome.NOT_ALLOWED: (403, "ERROR", True),
    Outcome.RUNNING: (409, "WARNING", False),
    Outcome.FAILED: (500, "ERROR", True),
    Outcome.TIMED_OUT: (500, "ERROR", True),
    Outcome.CUT: (500, "ERROR", True),
    Outcome.UNAVAILABLE: (503, "ERROR", True),
    Outcome.DRAINING: (503, "WARNING", False),
    Outcome.OVERDUE: (503, "WARNING", False),
}


def test_every_outcome_has_its_row() -> None:
    assert {
        outcome: (row.status, logging.getLevelName(row.level), row.is_failure)
        for outcome, row in OUTCOMES.items()
    } == EXPECTED
    assert EXPECTED.keys() == set(Outcome)


def test_the_view_answers_what_the_table_says() -> None:
    for outcome in Outcome:
        response = make_response(Result(outcome=outcome, reason="why"))
        assert response.status_code == EXPECTED[outcome][0]
        is_deleted = response.status_code == 200
        assert ("error" not in json.loads(response.content)) is is_deleted


@pytest.mark.parametrize("outcome", Outcome)
def test_no_row_of_the_table_is_idle(outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Consequences(599, Settle.LEAVE, logging.ERROR)
    monkeypatch.setattr(outcomes, "OUTCOMES", MappingProxyType({**OUTCOMES, outcome: row}))
    result = Result(outcome=outcome)
    assert make_response(result).status_code == 599
    assert result.settle is Settle.LEAVE


def test_status_and_settle_agree() -> None:
    for outcome, row in OUTCOMES.items():
        assert (row.status == 200) is (row.settle is Settle.DELETE)
        assert Result(outcome=outcome).is_acknowledged is (row.settle is Settle.DELETE)


def test_a_message_with_a_successor_is_deleted() -> None:
    for outcome, successor in product(Outcome, Successor):
        result = Result(outcome=outcome, successor=successor)
        assert (result.status, result.settle, result.is_acknowledged) == (200, Settle.DELETE, True)


def test_a_result_survives_json() -> None:
    for outcome, successor in product(Outcome, [None, *Successor]):
        result = Result(
            outcome=outcome, reason="why", retry_after=1.5, is_final=True, successor=successor
        )
        assert Result.from_json(json.loads(json.dumps(changed_fields(result)))) == result
