"""Checks a call against its task's signature, where the process knows the task.

A web process does not import the modules of tasks for this: it checks the tasks whose modules it
has imported anyway. It imports them in development, and where the tasks run in the process.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.conf import settings

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import InvalidCall, UnknownFunction
from beanstalk_dispatch.running.definitions.dispatch_table import entry
from beanstalk_dispatch.running.definitions.parameters import (
    TaskParameters,
    explain_mismatch,
    read_parameters,
)

_MAX_FITTING: Final = 100
"""The number that is kept: a task with ``**kwargs`` may be called with ever more names."""


@functools.lru_cache(maxsize=1)
def _parameters_by_name(config: Config) -> dict[str, TaskParameters | None]:
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
            known[name] = read_parameters(entry(name, config))
        except (Exception, SystemExit) as exc:  # checks and worker report a failed import
            if type(exc) is UnknownFunction and name not in config.table:
                raise
            return
    parameters = known[name]
    call = (len(args), *kwargs)
    if parameters is None or call in parameters.fitting:
        return
    if problem := explain_mismatch(name, args, kwargs, parameters):
        raise InvalidCall(problem)
    if len(parameters.fitting) < _MAX_FITTING:
        parameters.fitting.add(call)


def is_known(name: str, config: Config, *, is_local: bool) -> bool:
    """Return True if this process has imported a listed task, or may import it."""
    path = config.table.get(name, name)
    return is_local or path.rpartition(".")[0] in sys.modules or settings.DEBUG
