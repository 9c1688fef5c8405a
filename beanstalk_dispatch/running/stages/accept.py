"""accept: refuse a body that is not a message of ours, or one that is too old."""

from __future__ import annotations

from typing import cast

from beanstalk_dispatch.running.run import Run


def accept(run: Run) -> None:
    """Raise the exception of ``read``. The observers of the delivery see it here."""
    raise cast("BaseException", run.exception)
