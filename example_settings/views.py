"""The view of the web process. It schedules tasks and answers at once."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from beanstalk_dispatch.client import schedule_function


@csrf_exempt
@require_POST
def samples(request: HttpRequest) -> JsonResponse:
    """Schedule each sample task. Answer with a JSON object of names and task ids."""
    return JsonResponse(
        {
            "send_welcome": schedule_function("mail", "send_welcome", 7),
            "resize_image": schedule_function("work", "resize_image", "cat.png", seconds=2),
            "charge_card": schedule_function("work", "charge_card", 42),
            "build_report": schedule_function("work", "build_report", "2026"),
            "sync_stock": schedule_function("work", "sync_stock", "north"),
        }
    )
