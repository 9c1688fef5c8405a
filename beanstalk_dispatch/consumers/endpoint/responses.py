"""The answers of both views that are errors."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse


def wrong_method(*accepted: str) -> HttpResponse:
    """Refuse the method of a request, and name those that are accepted."""
    response = error_response(405, f"only {accepted[0]} is accepted")
    response["Allow"] = ", ".join(accepted)
    return response


def error_response(status: int, message: str) -> HttpResponse:
    """Return an error as JSON. Django logs nothing about it."""
    response = JsonResponse({"error": status, "message": message}, status=status)
    # Django's django.request logger would add a line of its own, and mail every 500 to ADMINS.
    response._has_been_logged = True  # type: ignore[attr-defined] # noqa: SLF001
    return response
