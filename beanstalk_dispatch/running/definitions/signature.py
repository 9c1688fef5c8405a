"""The signature of a function of the project, whose annotations may name what is not imported."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

# From Python 3.14 on, inspect evaluates annotations: a name under ``if TYPE_CHECKING`` would raise.
_ANNOTATIONS_AS_THEY_ARE: Final[dict[str, Any]] = (
    {"annotation_format": import_module("annotationlib").Format.FORWARDREF}
    if sys.version_info >= (3, 14)
    else {}
)


def signature_of(function: Callable[..., Any], *, follow_wrapped: bool = True) -> inspect.Signature:
    """Return a function's signature, although a name in its annotations is unknown.

    Raise TypeError or ValueError, as ``inspect.signature`` does.
    """
    return inspect.signature(function, follow_wrapped=follow_wrapped, **_ANNOTATIONS_AS_THEY_ARE)
