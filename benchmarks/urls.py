"""The dispatcher and, routed alike and behind the same middleware, the view that does nothing."""

from __future__ import annotations

import time
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import include, path, re_path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def empty(request: HttpRequest) -> JsonResponse:
    """The baseline: what any view that takes a POST does."""
    request.body  # noqa: B018
    return JsonResponse({})


def cpu(request: HttpRequest) -> JsonResponse:
    """CPU seconds this worker process has used."""
    return JsonResponse(time.process_time(), safe=False)


def no_op(*args: Any, **kwargs: Any) -> None:
    """The task."""


urlpatterns = [
    path("empty/", include([re_path(r"^(?:dispatcher/?)?$", empty)])),
    path("beanstalk_dispatch/", include("beanstalk_dispatch.urls")),
    path("cpu", cpu),
]
