"""Lambda: runs the messages of an SQS event source mapping, as the other consumers do.

    Handler: beanstalk_dispatch.contrib.aws_lambda.handler

docs/lambda.md has more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .function import Handler

__all__ = ["handler"]

handler: Handler
"""Takes an event and its context, and returns a partial batch response."""


def __getattr__(name: str) -> Any:
    """Start Django when Lambda asks for the handler, in the function's init phase.

    So nothing happens when the module is imported, and the first message does not wait for Django.
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
    """
    if name != "handler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .function import start  # noqa: PLC0415 - it imports Django

    try:
        started = start()
    except AttributeError as exc:
        # Lambda takes an AttributeError for a handler that is missing, and hides the cause.
        raise RuntimeError(f"Django cannot start: {exc}").with_traceback(exc.__traceback__) from exc
    return globals().setdefault(name, started)
