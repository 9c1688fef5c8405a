"""The dispatcher, and an empty view with the same routing and the same middleware."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import include, path, re_path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def empty(request: HttpRequest) -> JsonResponse:
    """Read the body and answer. This is the baseline."""
    request.body  # noqa: B018
    return JsonResponse({})


def no_op(*args: Any, **kwargs: Any) -> None:
    """Do nothing. This is the task."""


urlpatterns = [
    path("empty/", include([re_path(r"^(?:dispatcher/?)?$", empty)])),
    path("beanstalk_dispatch/", include("beanstalk_dispatch.urls")),
]
