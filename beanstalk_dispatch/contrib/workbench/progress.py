"""An action on dead letters: a page that grows while it runs, and an entry of the admin's log."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import closing
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.template.loader import render_to_string

from beanstalk_dispatch.dead_letters.sweep import Steps, SweepReport
from beanstalk_dispatch.exceptions import BeanstalkDispatchError
from beanstalk_dispatch.queues.waiting import problem_of

from .models import DeadLetter

STEP_SECONDS: Final = 1.0
"""Seconds between two lines of the page."""
_MARK: Final = "<!-- progress -->"
_PAGE: Final = "admin/beanstalk_workbench/deadletter/progress.html"
_REPORT: Final = "admin/beanstalk_workbench/deadletter/report.html"


def log_action(request: HttpRequest, *, queue: str, verb: str, message: str) -> LogEntry:
    """Write an entry of the admin's log about a queue or its dead letters."""
    return LogEntry.objects.create(
        user_id=request.user.pk,
        content_type=ContentType.objects.get_for_model(DeadLetter),
        object_id=queue,
        object_repr=queue,
        action_flag=DELETION if verb == "discarded" else CHANGE,
        change_message=message,
    )


def progress_response(
    request: HttpRequest, steps: Steps, entry: LogEntry, context: dict[str, Any]
) -> StreamingHttpResponse:
    """Return a page that shows the steps of a run as they are taken.

    The run ends with the connection, because a server closes a page that it cannot send. A step
    that has begun is finished then, and nothing stays hidden.
    """
    page = render_to_string(_PAGE, context, request=request)
    head, _, tail = page.partition(_MARK)

    def show(report: SweepReport, *, is_over: bool) -> str:
        return render_to_string(_REPORT, {**context, "report": report, "is_over": is_over})

    chunks = _stream_page(head, tail, steps, entry, show)
    is_asgi = isinstance(request, ASGIRequest)
    response = StreamingHttpResponse(_in_a_thread(chunks) if is_asgi else chunks)
    response["X-Accel-Buffering"] = "no"  # nginx passes each line on at once
    return response


def _stream_page(
    head: str, tail: str, steps: Steps, entry: LogEntry, show: Callable[..., str]
) -> Generator[str, None, None]:
    report, shown_at = SweepReport(), time.monotonic()
    begun = entry.change_message
    try:
        with closing(steps):
            yield head
            for report in steps:
                if time.monotonic() - shown_at >= STEP_SECONDS:
                    shown_at = time.monotonic()
                    yield show(report, is_over=False)
    except BeanstalkDispatchError as exc:
        report.error = problem_of(exc)
    finally:
        entry.change_message = f"{begun} {_describe_result(report)}"
        entry.save(update_fields=["change_message"])
    yield show(report, is_over=True)
    yield tail


async def _in_a_thread(chunks: Generator[str, None, None]) -> AsyncIterator[str]:
    """Yield the chunks for ASGI, which would send none before the last. The thread is the ORM's."""
    try:
        while (chunk := await sync_to_async(lambda: next(chunks, None))()) is not None:
            yield chunk
    finally:
        await sync_to_async(chunks.close)()


def _describe_result(report: SweepReport) -> str:
    found = f"Done: {report.done}. Not possible: {report.failed}."
    return f"{found} Ended early: {report.error}" if report.error else found
