"""The order of a run's stages, and the loop that calls them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Final, NamedTuple

from django.core.cache import caches

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.messages.outcomes import Result

from .refusing import result_of
from .run import Run, Stage, Surround
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


class Step(NamedTuple):
    """One stage of the pipeline."""

    name: str
    stage: Stage
    in_child: bool
    """True if a child runs the stage, of a task that has a process of its own.

    The parent runs all stages up to ``hand over``.
    """


STAGES: Final = (
    Step("limit", limit.limit, in_child=True),
    Step("read", read.read, in_child=False),
    Step("report", report.report, in_child=False),
    Step("accept", accept.accept, in_child=False),
    Step("postpone", postpone.postpone, in_child=False),
    Step("known", known.known, in_child=False),
    Step("look up", look_up.look_up, in_child=True),
    Step("unique", unique.unique, in_child=False),
    Step("expire", expire.expire, in_child=False),
    Step("due", due.due, in_child=False),
    Step("count", count.count, in_child=False),
    Step("contain", contain.contain, in_child=False),
    Step("hand over", hand_over.hand_over, in_child=False),
    Step("start", start.start, in_child=True),
    Step("lease", lease.lease, in_child=True),
    Step("slot", slot.slot, in_child=True),
    Step("overdue", overdue.overdue, in_child=True),
    Step("free", free.free, in_child=True),
    Step("observe", observe.observe, in_child=True),
    Step("follow up", follow_up.follow_up, in_child=True),
    Step("restore", restore.restore, in_child=True),
    Step("attempt", attempt.attempt, in_child=True),
)
"""The guards of every delivery, in order. Each surrounds those after it."""

_has_caches: ContextVar[bool] = ContextVar("beanstalk_dispatch.has_caches", default=False)


def run_delivery(run: Run) -> Result:
    """Run a delivery, log one line about it, and return its Result.

    An empty body with a task name is a periodic task of cron.yaml. Raise ConfigurationError if the
    configuration is wrong, and exceptions that are for the process rather than the task: Ctrl-C and
    SystemExit in the main thread.
    """
    if not _has_caches.get():
        _make_caches()
    # What a task activates, such as a language or a time zone, ends with its delivery.
    return copy_context().run(run_stages, run, stages_of(run.config))


def run_in_child(run: Run) -> Result:
    """Run the stages of a child, for a run that its parent has brought as far as ``hand over``.

    Raise what ``run_delivery`` raises.
    """
    if not _has_caches.get():
        _make_caches()
    return copy_context().run(run_stages, run, stages_of(run.config, in_child=True))


def _make_caches() -> None:
    """Let a thread's tasks share its cache backends, as its requests do under a web server.

    A backend that is made in a delivery's own context would connect again for each delivery.
    """
    for alias in caches:
        with suppress(Exception):  # one that cannot be made fails where it is used
            caches[alias]
    _has_caches.set(True)


@functools.lru_cache(maxsize=1)
def stages_of(config: Config, *, in_child: bool = False) -> Sequence[Stage]:
    """Return the stages that this configuration has not turned off."""
    off: set[Stage] = set()
    if config.lease_cache is None:
        off.add(lease.lease)
        off |= {unique.unique, free.free}
    if config.execute_synchronously or not config.has_policy("limit"):
        off.add(slot.slot)
    if config.execute_synchronously:  # the caller may be a log handler
        off |= {restore.restore, unique.unique, free.free}
    steps = [each for each in STAGES if each.in_child or not in_child]
    return [each.stage for each in steps if each.stage not in off]


def run_stages(run: Run, stages: Sequence[Stage]) -> Result:
    """Call the stages until one returns a Result, then leave those that surround it.

    Raise an exception that is for the process or the caller; each surround sees it first.
    """
    surrounds: list[Surround] = []
    result: Result | None = None
    error: BaseException | None = None
    try:
        for stage in stages:
            found = stage(run)
            if found is not None and not isinstance(found, Result):
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
    run: Run, surrounds: list[Surround], result: Result | None, error: BaseException | None
) -> Result:
    """Leave the stages from the last to the first, and return the Result of the first."""
    while surrounds:
        surround = surrounds.pop()
        try:
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


def _no_result() -> RuntimeError:
    return RuntimeError("no stage has returned a Result")


def _judge(run: Run, error: BaseException) -> tuple[BaseException, Result | None]:
    """Return an error of a stage, or the one that its dead letter has raised, and its Result."""
    try:
        return error, result_of(run, error)
    except BaseException as exc:
        return exc, result_of(run, exc)
