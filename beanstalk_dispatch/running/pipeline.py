"""The order of a run's stages, and the loop that calls them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, final

from django.core.cache import caches

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.messages.outcomes import Outcome, Result

from .refusing import result_of
from .run import OutcomeStage, Run, Stage, Surround
from .stages import (
    accept,
    attempt,
    contain,
    count,
    due,
    expire,
    follow_up,
    free,
    hand_over,
    known,
    lease,
    limit,
    look_up,
    observe,
    overdue,
    postpone,
    read,
    report,
    restore,
    slot,
    start,
    unique,
)


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of the pipeline."""

    name: str
    stage: Stage
    in_child: bool = False
    """True if a child runs the stage, of a task that has one. Must be True behind ``hand over``.

    The parent runs all stages up to ``hand over``, and those behind it for a task without a child.
    """
    only_if: Callable[[Run], object] | None = None
    """The fact of a run without which the stage has nothing to do, and is not called."""


@final
@dataclass(frozen=True, slots=True)
class OutcomeStep:
    """A stage that is called after those behind it, if they have one of these outcomes."""

    name: str
    stage: OutcomeStage
    outcomes: Collection[Outcome]
    in_child: bool = False


STAGES: Final[Sequence[Step | OutcomeStep]] = (
    Step("limit", limit.limit, in_child=True),
    Step("read", read.read),
    Step("report", report.report),
    Step("accept", accept.accept, only_if=attrgetter("exception")),
    OutcomeStep("postpone", postpone.postpone, {Outcome.RUNNING, Outcome.UNAVAILABLE}),
    Step("known", known.known, only_if=attrgetter("delivery.message_id")),
    Step("look up", look_up.look_up, in_child=True),
    Step("unique", unique.unique, only_if=attrgetter("message.unique")),
    Step("expire", expire.expire),
    Step("due", due.due, only_if=attrgetter("message.not_before")),
    Step("count", count.count, only_if=attrgetter("retries_by_hiding")),
    Step("contain", contain.contain),
    Step("hand over", hand_over.hand_over, only_if=attrgetter("child")),
    Step("start", start.start, in_child=True),
    Step("lease", lease.lease, in_child=True),
    Step("slot", slot.slot, in_child=True),
    Step("overdue", overdue.overdue, in_child=True, only_if=attrgetter("delivery.waited")),
    Step("free", free.free, in_child=True, only_if=attrgetter("message.unique")),
    Step("observe", observe.observe, in_child=True, only_if=attrgetter("entry.observers")),
    OutcomeStep("follow up", follow_up.follow_up, follow_up.OUTCOMES_TO_FOLLOW, in_child=True),
    Step("restore", restore.restore, in_child=True),
    Step("attempt", attempt.attempt, in_child=True),
)
"""The guards of every delivery, in order. Each surrounds those after it."""

_has_caches: ContextVar[bool] = ContextVar("beanstalk_dispatch.has_caches", default=False)


def run_delivery(run: Run, *, in_child: bool = False) -> Result:
    """Run a delivery, log one line about it, and return its Result.

    In a child, run its stages of a run that the parent has brought as far as ``hand over``.

    An empty body with a task name is a periodic task of cron.yaml. Raise ConfigurationError if the
    configuration is wrong, and exceptions that are for the process rather than the task: Ctrl-C and
    SystemExit in the main thread.
    """
    if not _has_caches.get():
        _make_caches()
    # What a task activates, such as a language or a time zone, ends with its delivery.
    return copy_context().run(run_steps, run, steps_of(run.config, in_child=in_child))


def _make_caches() -> None:
    """Let a thread's tasks share its cache backends, as its requests do under a web server.

    A backend that is made in a delivery's own context would connect again for each delivery.
    """
    for alias in caches:
        with suppress(Exception):  # one that cannot be made fails where it is used
            caches[alias]
    _has_caches.set(True)


@functools.lru_cache(maxsize=2)
def steps_of(config: Config, *, in_child: bool = False) -> Sequence[Step | OutcomeStep]:
    """Return the stages that this configuration has not turned off."""
    off: set[Stage] = set()
    if config.lease_cache is None:
        off.add(lease.lease)
        off |= {unique.unique, free.free}
    if config.execute_synchronously or not config.has_policy("limit"):
        off.add(slot.slot)
    if config.execute_synchronously:  # the caller may be a log handler
        off |= {restore.restore, unique.unique, free.free}
    return [each for each in STAGES if each.stage not in off and (each.in_child or not in_child)]


def run_steps(run: Run, steps: Sequence[Step | OutcomeStep]) -> Result:
    """Call the stages until one returns a Result, then leave those that surround it.

    Raise an exception that is for the process or the caller; each surround sees it first.
    """
    surrounds: list[Surround | OutcomeStep] = []
    result: Result | None = None
    error: BaseException | None = None
    try:
        for step in steps:
            if type(step) is OutcomeStep:
                surrounds.append(step)
                continue
            if step.only_if is not None and not step.only_if(run):
                continue
            found = step.stage(run)
            if found is not None and type(found) is not Result:
                try:
                    next(found)
                except StopIteration as stop:  # it refuses the message, or surrounds nothing
                    found = stop.value
                else:
                    surrounds.append(found)
                    continue
            if found is not None:
                result = found
                break
    except BaseException as exc:
        error, result = _judge(run, exc)
    return _leave(run, surrounds, result, error)


def _leave(
    run: Run,
    surrounds: list[Surround | OutcomeStep],
    result: Result | None,
    error: BaseException | None,
) -> Result:
    """Leave the stages from the last to the first, and return the Result of the first."""
    while surrounds:
        surround = surrounds.pop()
        try:
            if type(surround) is OutcomeStep:
                if result is not None and result.outcome in surround.outcomes:
                    result = _look_at(surround, run, result)
                continue
            if result is None:
                surround.throw(error or _no_result())
            else:
                surround.send(result)
            raise RuntimeError("a stage yields once")
        except StopIteration as stop:
            result = stop.value or result
        except BaseException as exc:
            error, result = _judge(run, exc)
    if result is None:
        raise error or _no_result()
    return result


def _look_at(step: OutcomeStep, run: Run, result: Result) -> Result:
    try:
        return step.stage(run, result) or result
    except StopIteration as exc:  # it would look like the end of a stage that surrounds
        raise RuntimeError("a stage has raised StopIteration") from exc


def _no_result() -> RuntimeError:
    return RuntimeError("no stage has returned a Result")


def _judge(run: Run, error: BaseException) -> tuple[BaseException, Result | None]:
    """Return an error of a stage, or the one that its dead letter has raised, and its Result."""
    try:
        return error, result_of(run, error)
    except BaseException as exc:
        return exc, result_of(run, exc)
