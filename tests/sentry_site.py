"""What the Sentry tests schedule, and the views of a web process that does."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import sentry_sdk
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from beanstalk_dispatch.client import Call, schedule, schedule_many
from beanstalk_dispatch.safe_task import Retry, SafeTask
from tests import jobs

SECRET = "an-argument-that-must-not-leave"
TABLE = (
    "quiet=tests.sentry_site.quiet boom=tests.sentry_site.boom slow=tests.sentry_site.Slow "
    "block=tests.sentry_site.Block mine=tests.sentry_site.Mine patient=tests.sentry_site.Patient "
    "again=tests.sentry_site.again mixed=tests.sentry_site.mixed broken=tests.jobs.NeedsArgument "
    "hooked=tests.sentry_site.Hooked nested=tests.sentry_site.nested "
    "coroutine=tests.sentry_site.coroutine"
)


def quiet(*args: Any, **kwargs: Any) -> None:
    """Nothing goes wrong."""


def deeper(value: object) -> None:
    shown = f"seen: {value}"
    raise ValueError(f"no good, {len(shown)} characters")


def boom(given: Any = None, *more: Any, **named: Any) -> None:
    remembered = {"it": [given]}
    harmless = "a local worth seeing"
    deeper(given or remembered or harmless)


def again(given: str) -> None:
    raise Retry("not yet", delay=0)


def mixed(number: int, *more: Any) -> None:
    """Leaves traces in its scope, gives way to others, and fails."""
    sentry_sdk.set_tag(f"own-{number}", "yes")
    sentry_sdk.set_user({"id": str(number)})
    for _ in range(3):
        sentry_sdk.add_breadcrumb(message=f"crumb {number}")
        time.sleep(0.01)
    raise RuntimeError(f"number {number}")


async def coroutine(number: int, *more: Any) -> None:
    """The same, on an event loop."""
    sentry_sdk.set_tag(f"own-{number}", "yes")
    sentry_sdk.set_user({"id": str(number)})
    for _ in range(3):
        sentry_sdk.add_breadcrumb(message=f"crumb {number}")
        await asyncio.sleep(0.01)
    raise RuntimeError(f"number {number}")


def nested() -> None:
    """Has a transaction of its own, and fails."""
    with sentry_sdk.start_transaction(op="task", name="of its own"):
        pass
    raise RuntimeError


class Slow(SafeTask):
    timeout_timedelta = timedelta(seconds=3)

    def run(self, seconds: float) -> None:
        jobs.spin(seconds)


class Block(SafeTask):
    timeout_timedelta = timedelta(seconds=1)

    def run(self, seconds: float) -> None:
        jobs.block(seconds)


class Mine(SafeTask):
    """Of the project's own; its on_error does not call super()."""

    def run(self, given: str) -> None:
        deeper(given)

    def on_error(self, e: BaseException, /, *args: Any, **kwargs: Any) -> None:
        sentry_sdk.set_tag("set-in-on-error", "yes")


class Hooked(SafeTask):
    """Succeeds; one of its hooks does not."""

    def run(self, given: str) -> None:
        assert given

    def on_success(self, given: str) -> None:
        deeper(given)


class Patient(SafeTask):
    max_retries = 2
    retry_backoff = timedelta(0)

    def run(self, given: str) -> None:
        deeper(given)


@csrf_exempt
def one(request: HttpRequest, queue: str, function: str) -> JsonResponse:
    return JsonResponse([schedule(queue, Call(function, [SECRET]))], safe=False)


@csrf_exempt
def three(request: HttpRequest, queue: str) -> JsonResponse:
    return JsonResponse(schedule_many(queue, [Call("quiet", [SECRET])] * 3), safe=False)


urlpatterns = [
    path("one/<queue>/<function>", one),
    path("three/<queue>", three),
    path("beanstalk_dispatch/", include("beanstalk_dispatch.urls")),
]
