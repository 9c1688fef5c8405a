"""The signature of a function of the project, whose annotations may be wrong or not imported."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import Any, Final

# From Python 3.14 on, inspect evaluates annotations: a name under ``if TYPE_CHECKING`` would raise.
_ANNOTATIONS_AS_THEY_ARE: Final[dict[str, Any]] = (
    {"annotation_format": import_module("annotationlib").Format.FORWARDREF}
    if sys.version_info >= (3, 14)
    else {}
)


def annotated_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature with its annotations, of which some may be a ForwardRef.

    Raise any exception of an annotation such as ``"Order" | None``, from Python 3.14 on.
    """
    return inspect.signature(function, **_ANNOTATIONS_AS_THEY_ARE)


def signature_of(function: Callable[..., Any], *, follow_wrapped: bool = True) -> inspect.Signature:
    """Return a function's signature, although its annotations may be wrong.

    Raise TypeError or ValueError, as ``inspect.signature`` does.
    """
    try:
        return inspect.signature(
            function, follow_wrapped=follow_wrapped, **_ANNOTATIONS_AS_THEY_ARE
        )
    except Exception:
        bare = inspect.unwrap(function) if follow_wrapped else function
        if not isinstance(bare, FunctionType):
            raise
        return inspect.signature(_without_annotations(bare))


def _without_annotations(function: FunctionType) -> FunctionType:
    copy = FunctionType(
        function.__code__, {}, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
