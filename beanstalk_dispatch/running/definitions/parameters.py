"""The parameters of a task, and the advice for a call that does not fit them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Final

from beanstalk_dispatch.safe_task import SafeTask

from .entries import Entry
from .signature import signature_of

_BELONGS_TO_CALL: Final = (
    "{name}= belongs to Call: schedule(queue, Call({task!r}, [...], {name}=...))"
)
_ARGUMENTS_THEMSELVES: Final = (
    "for args= and kwargs= write schedule_function(queue, {task!r}, 1, a=2)"
)
_TIME_LIMIT: Final = "a time limit is set by @task(timeout=...) or SafeTask(..., timeout=...)"
_REMEDIES: Final[Mapping[str, str]] = {
    "delay": _BELONGS_TO_CALL,
    "group_id": _BELONGS_TO_CALL,
    "deduplication_id": _BELONGS_TO_CALL,
    "expires": _BELONGS_TO_CALL,
    "unique": _BELONGS_TO_CALL,
    "countdown": "write Call({task!r}, [...], delay=...) for countdown=",
    "eta": "write Call({task!r}, [...], delay=eta - timezone.now()) for eta=",
    "timeout": _TIME_LIMIT,
    "time_limit": _TIME_LIMIT,
    "args": _ARGUMENTS_THEMSELVES,
    "kwargs": _ARGUMENTS_THEMSELVES,
    "on_commit": "on_commit= belongs to schedule: schedule(queue, Call(...), on_commit=True)",
}
"""Argument that a task, or Call, does not take → advice on writing the call."""


class _DefaultValue:
    """Stands for the default of a parameter in an error, which need not show its value."""

    def __repr__(self) -> str:
        return "..."


_DEFAULT: Final = _DefaultValue()


@dataclass(frozen=True, slots=True)
class TaskParameters:
    """The parameters of a task, and the calls that were found to fit them."""

    signature: inspect.Signature
    fitting: set[tuple[object, ...]] = field(default_factory=set)
    """Calls that fit: the number of positional arguments, and the names of the others."""


def read_parameters(task: Entry) -> TaskParameters | None:
    """Return the parameters of a task's function or ``run``; None if arguments may be changed."""
    classes = [each for each in (task.task_class, task.configured_class) if each]
    if any(each.process is not SafeTask.process for each in classes):
        return None
    function, skipped = task.signed
    return _parameters_of(function, skipped=skipped)


def _parameters_of(function: Callable[..., Any], *, skipped: int) -> TaskParameters | None:
    if not isinstance(function, FunctionType):
        return None
    # A decorator may pass other arguments on, so the signature of the function inside says nothing.
    signature = signature_of(function, follow_wrapped=False)
    parameters = list(signature.parameters.values())[skipped:]
    return TaskParameters(signature.replace(parameters=parameters))


def explain_mismatch(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], parameters: TaskParameters
) -> str:
    """Return why a call does not fit, with advice; empty if it fits."""
    signature = parameters.signature
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        plain = [
            each.replace(
                annotation=each.empty,
                default=each.empty if each.default is each.empty else _DEFAULT,
            )
            for each in signature.parameters.values()
        ]
        unknown = [each for each in kwargs if each not in signature.parameters]
        written = f"it is {name}{inspect.Signature(plain)}"
        return "; ".join([f"{name}: {exc}", written, *advice_on(unknown, name)])
    return ""


def advice_on(names: Iterable[str], task: str) -> list[str]:
    """Return advice on the keywords of a call of ``task`` that are not its own."""
    found = [_REMEDIES[each].format(name=each, task=task) for each in names if each in _REMEDIES]
    return list(dict.fromkeys(found))
