"""Checks a call against its task's signature, where the process knows the task.

A web process does not import the modules of tasks for this: it checks the tasks whose modules it
has imported anyway. It imports them in development, and where the tasks run in the process.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Final

from django.conf import settings

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import InvalidCall, UnknownFunction
from beanstalk_dispatch.running.dispatch_table import Entry, entry
from beanstalk_dispatch.safe_task import SafeTask

_BELONGS_TO_CALL: Final = (
    "{name}= belongs to Call: schedule(queue, Call({task!r}, [...], {name}=...))"
)
_REMEDIES: Final[Mapping[str, str]] = {
    "delay": _BELONGS_TO_CALL,
    "group_id": _BELONGS_TO_CALL,
    "deduplication_id": _BELONGS_TO_CALL,
    "expires": _BELONGS_TO_CALL,
    "unique": _BELONGS_TO_CALL,
    "countdown": "write Call({task!r}, [...], delay=...) for countdown=",
    "on_commit": "on_commit= belongs to schedule: schedule(queue, Call(...), on_commit=True)",
}
"""Argument that a task does not take → advice on writing the call."""


class _DefaultValue:
    """Stands for the default of a parameter in an error, which need not show its value."""

    def __repr__(self) -> str:
        return "..."


_DEFAULT: Final = _DefaultValue()


@dataclass(frozen=True, slots=True)
class _TaskParameters:
    """The parameters of a task, and the calls that were found to fit them."""

    signature: inspect.Signature
    fitting: set[tuple[object, ...]] = field(default_factory=set)
    """Calls that fit: the number of positional arguments, and the names of the others."""


_MAX_FITTING: Final = 100
"""The number that is kept: a task with ``**kwargs`` may be called with ever more names."""


@functools.lru_cache(maxsize=1)
def _parameters_by_name(config: Config) -> dict[str, _TaskParameters | None]:
    """Return the parameters of the tasks that were called; None if they cannot be known."""
    return {}


def check_call(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], config: Config, *, is_local: bool
) -> None:
    """Raise InvalidCall if the listed task ``name`` does not take these arguments.

    Raise UnknownFunction if a listed module has no such task.

    With ``is_local`` its module is imported for that, because the task may run in this process.
    """
    known = _parameters_by_name(config)
    if name not in known:
        if not is_known(name, config, is_local=is_local):
            return
        try:
            known[name] = _read_parameters(entry(name, config))
        except (Exception, SystemExit) as exc:  # checks and worker report a failed import
            if type(exc) is UnknownFunction and name not in config.table:
                raise
            return
    parameters = known[name]
    call = (len(args), *kwargs)
    if parameters is None or call in parameters.fitting:
        return
    try:
        parameters.signature.bind(*args, **kwargs)
    except TypeError as exc:
        raise InvalidCall(_explain_mismatch(name, parameters.signature, kwargs, exc)) from None
    if len(parameters.fitting) < _MAX_FITTING:
        parameters.fitting.add(call)


def is_known(name: str, config: Config, *, is_local: bool) -> bool:
    """Return True if this process has imported a listed task, or may import it."""
    path = config.table.get(name, name)
    return is_local or settings.DEBUG or path.rpartition(".")[0] in sys.modules


def _read_parameters(task: Entry) -> _TaskParameters | None:
    """Return the parameters of a task's function or ``run``; None if arguments may be changed."""
    classes = [each for each in (task.task_class, task.configured_class) if each]
    if any(each.process is not SafeTask.process for each in classes):
        return None
    function, skipped = task.signed
    return _parameters_of(function, skipped=skipped)


def _parameters_of(function: Callable[..., Any], *, skipped: int) -> _TaskParameters | None:
    if not isinstance(function, FunctionType):
        return None
    # A decorator may pass other arguments on, so the signature of the function inside says nothing.
    signature = inspect.signature(function, follow_wrapped=False)
    parameters = list(signature.parameters.values())[skipped:]
    return _TaskParameters(signature.replace(parameters=parameters))


def _explain_mismatch(
    name: str, signature: inspect.Signature, kwargs: Mapping[str, Any], error: TypeError
) -> str:
    plain = [
        each.replace(
            annotation=each.empty, default=each.empty if each.default is each.empty else _DEFAULT
        )
        for each in signature.parameters.values()
    ]
    remedies = [
        _REMEDIES[each].format(name=each, task=name)
        for each in kwargs
        if each in _REMEDIES and each not in signature.parameters
    ]
    return "; ".join([f"{name}: {error}", f"it is {name}{inspect.Signature(plain)}", *remedies])
