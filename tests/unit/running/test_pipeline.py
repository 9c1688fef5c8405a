from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from django.test import Client

import beanstalk_dispatch
from beanstalk_dispatch.exceptions import ConfigurationError, MalformedMessage
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.running.pipeline import STAGES, OutcomeStep, Step, run_steps, steps_of
from beanstalk_dispatch.running.run import DONE, Run, Stage, Surround
from tests.conftest import Environment
from tests.runs import run_of

PACKAGE = Path(beanstalk_dispatch.__file__).parent
FAILED = Result(outcome=Outcome.FAILED)


def run_stages(run: Run, stages: Sequence[Stage]) -> Result:
    return run_steps(run, [Step("one", stage) for stage in stages])


def surround(seen: list[object], name: str, *, answer: Result | None = None) -> Stage:
    def stage(run: Run) -> Surround:
        seen.append(f"into {name}")
        try:
            result = yield
        except BaseException as exc:
            seen.append((name, type(exc)))
            raise
        seen.append((name, result.outcome))
        return answer

    return stage


def returns(result: Result | None) -> Stage:
    return lambda run: result


def raises(error: BaseException) -> Callable[[Run], Result | None]:
    def stage(run: Run) -> Result | None:
        raise error

    return stage


def test_a_guard_that_returns_a_result_stops_the_run() -> None:
    assert run_stages(run_of(), [returns(None), returns(DONE), raises(ValueError())]) == DONE


def test_a_surround_gets_the_result_of_those_after_it_and_may_return_another() -> None:
    seen: list[object] = []
    stages = [surround(seen, "a"), surround(seen, "b", answer=FAILED), returns(DONE)]
    assert run_stages(run_of(), stages) == FAILED
    assert seen == ["into a", "into b", ("b", Outcome.DONE), ("a", Outcome.FAILED)]


def test_a_surround_without_a_yield_is_a_guard() -> None:
    def refuses(run: Run) -> Surround:
        yield from ()
        return FAILED

    def has_nothing_to_surround(run: Run) -> Surround:
        yield from ()
        return None

    assert run_stages(run_of(), [has_nothing_to_surround, refuses, returns(DONE)]) == FAILED


@pytest.mark.parametrize("error", [ValueError("told to fail"), StopIteration(), SystemError()])
def test_an_error_of_a_stage_is_a_result_for_those_around_it(error: Exception) -> None:
    seen: list[object] = []
    run = run_of()
    assert run_stages(run, [surround(seen, "a"), raises(error)]).outcome is Outcome.FAILED
    assert seen == ["into a", ("a", Outcome.FAILED)]
    assert run.exception is error


def test_an_error_on_the_way_out_is_a_result_too() -> None:
    seen: list[object] = []

    def fails_later(run: Run) -> Surround:
        yield
        raise ValueError("on the way out")

    stages = [surround(seen, "a"), fails_later, returns(DONE)]
    assert run_stages(run_of(), stages).outcome is Outcome.FAILED
    assert seen == ["into a", ("a", Outcome.FAILED)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ConfigurationError("x")])
def test_what_is_for_the_process_passes_every_surround(error: BaseException) -> None:
    seen: list[object] = []
    stages = [surround(seen, "a"), surround(seen, "b"), raises(error)]
    with pytest.raises(type(error)):
        run_stages(run_of(), stages)
    assert seen == ["into a", "into b", ("b", type(error)), ("a", type(error))]


def test_an_error_of_the_dead_letter_is_a_result_for_those_around_it(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_DEAD_LETTER_QUEUE="dead")
    monkeypatch.setattr("beanstalk_dispatch.running.dead_letters.open_queue", raises(MemoryError()))
    seen: list[object] = []
    refuses = raises(MalformedMessage("no message of ours"))
    assert run_stages(run_of(), [surround(seen, "a"), refuses]).outcome is Outcome.FAILED
    assert seen == ["into a", ("a", Outcome.FAILED)]


def test_a_surround_yields_once() -> None:
    run, yields_twice = run_of(), cast("Stage", lambda run: (None for _ in range(2)))
    assert run_stages(run, [yields_twice, returns(DONE)]).outcome is Outcome.FAILED
    assert str(run.exception) == "a stage yields once"


def test_a_stage_is_not_called_without_its_fact() -> None:
    def has_a_reason(run: Run) -> bool:
        return run.outcome is Outcome.RETRY

    steps = [Step("fails", raises(ValueError()), only_if=has_a_reason), Step("ends", returns(DONE))]
    run = run_of()
    assert run_steps(run, steps) == DONE
    run.outcome = Outcome.RETRY
    assert run_steps(run, steps).outcome is Outcome.FAILED


@pytest.mark.parametrize(("answer", "ended"), [(DONE, DONE), (None, FAILED)])
def test_a_stage_of_outcomes_may_return_another_result(
    answer: Result | None, ended: Result
) -> None:
    steps: list[Step | OutcomeStep] = [
        OutcomeStep(
            "other outcome", lambda run, result: Result(outcome=Outcome.CUT), {Outcome.RETRY}
        ),
        OutcomeStep("its outcome", lambda run, result: answer, {Outcome.FAILED}),
        Step("fails", returns(FAILED)),
    ]
    assert run_steps(run_of(), steps) == ended


@pytest.mark.parametrize("error", [ValueError("told to fail"), StopIteration()])
def test_an_error_of_a_stage_of_outcomes_is_a_result_for_those_around_it(error: Exception) -> None:
    def fails(run: Run, result: Result) -> Result:
        raise error

    seen: list[object] = []
    around = Step("around", surround(seen, "a"))
    steps: list[Step | OutcomeStep] = [
        around,
        OutcomeStep("fails", fails, {Outcome.DONE}),
        Step("ends", returns(DONE)),
    ]
    assert run_steps(run_of(), steps).outcome is Outcome.FAILED
    assert seen == ["into a", ("a", Outcome.FAILED)]


def test_some_stage_returns_a_result() -> None:
    with pytest.raises(RuntimeError, match="no stage has returned a Result"):
        run_stages(run_of(), [returns(None)])


def test_without_a_result_what_surrounds_sees_an_error() -> None:
    seen: list[object] = []
    assert run_stages(run_of(), [surround(seen, "a"), returns(None)]).outcome is Outcome.FAILED
    assert seen == ["into a", ("a", RuntimeError)]


def test_a_parent_runs_the_first_stages_and_a_child_the_rest() -> None:
    names = [step.name for step in STAGES]
    after = names.index("hand over") + 1
    assert [step.name for step in STAGES[:after] if step.in_child] == ["limit", "look up"]
    assert all(step.in_child for step in STAGES[after:])
    assert len({step.name for step in STAGES}) == len(STAGES)


@pytest.mark.parametrize(
    ("off", "members"),
    [
        ("unique lease slot free", {}),
        (
            "unique slot free restore",
            {"DISPATCH_LEASE_CACHE": "default", "DISPATCH_EXECUTE_SYNCHRONOUSLY": True},
        ),
    ],
)
def test_what_is_off_is_not_in_the_list(env: Environment, off: str, members: Any) -> None:
    env(**members)
    steps = steps_of(run_of().config)
    assert [step.name for step in STAGES if step not in steps] == off.split()


@pytest.mark.parametrize("body", ["text", b"bytes", b"\xff\x00", ""])
def test_a_delivery_survives_json(body: str | bytes) -> None:
    delivery = Delivery(
        body=body, queue="q", message_id="1", receive_count=3, sent_at=1.5, waited=0.25
    )
    assert Delivery.from_json(json.loads(json.dumps(delivery.to_json()))) == delivery


def frames() -> None:
    frame: Any = sys._getframe(1)
    while frame is not None:
        found.append(frame.f_code)
        frame = frame.f_back


found: list[Any] = []


def test_few_of_our_frames_are_between_the_post_and_the_function(env: Environment) -> None:
    found.clear()
    env(WORKER=True, DISPATCH_TABLE=f"frames={__name__}.frames")
    body = Message(function="frames").encode(queue="q")
    path = "/beanstalk_dispatch/dispatcher"
    assert Client().post(path, body, content_type="application/json").status_code == 200
    ours = [code.co_qualname for code in found if Path(code.co_filename).is_relative_to(PACKAGE)]
    assert len(ours) <= 11, ours
