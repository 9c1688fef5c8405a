"""Ten thousand functions and ten thousand classes, for a large table."""

from __future__ import annotations

from typing import Any

from beanstalk_dispatch.safe_task import SafeTask


def _function() -> Any:
    def noop(number: int, word: str, *, x: int) -> None:
        """Do nothing."""

    return noop


def _class(number: int) -> type[SafeTask]:
    return type(f"classes{number}", (SafeTask,), {"run": staticmethod(_function())})


def __getattr__(name: str) -> Any:
    for kind, make in (("functions", lambda number: _function()), ("classes", _class)):
        if name.startswith(kind) and name.removeprefix(kind).isdecimal():
            made = globals()[name] = make(int(name.removeprefix(kind)))
            return made
    raise AttributeError(name)
