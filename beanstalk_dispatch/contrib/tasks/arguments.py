"""Arguments that Django does not take: sent if the task's annotations bring them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .library import AnyTask, to_json

Arguments = tuple[Sequence[Any], Mapping[str, Any]]
"""The positional and the keyword arguments of a call."""


def arguments_to_send(
    task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Arguments, Arguments]:
    """Return the arguments to send, and those that a TaskResult shows.

    Raise TypeError as Django does for an argument that neither JSON nor an annotation carries.
    """
    try:
        normalized: Arguments = (to_json(args), to_json(kwargs))
    except TypeError:
        return _converted(task, args, kwargs)
    return normalized, normalized


def _converted(
    task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Arguments, Arguments]:
    # It imports Django's models, and is needed for such a call only.
    from beanstalk_dispatch.running.definitions.typed_arguments import (  # noqa: PLC0415
        Annotations,
        CannotRebuild,
        converted,
    )

    refused: dict[int | str, TypeError] = {}
    sent = (
        [_normalized(key, value, refused) for key, value in enumerate(args)],
        {key: _normalized(key, value, refused) for key, value in kwargs.items()},
    )
    shown: Arguments = sent
    for key, error in refused.items():
        try:
            known = Annotations(task.func, skipped=int(task.takes_context))
            shown = converted(*shown, [key], known)
        except CannotRebuild as exc:
            raise TypeError(f"{error}; or {exc}") from None
        except Exception:  # of an annotation, or of the project's own classes
            raise error from None
    return sent, shown


def _normalized(key: int | str, value: Any, refused: dict[int | str, TypeError]) -> Any:
    """Return a value as Django has it. Keep the error of one that Django refuses."""
    try:
        return to_json(value)
    except TypeError as exc:
        refused[key] = exc
        return value
