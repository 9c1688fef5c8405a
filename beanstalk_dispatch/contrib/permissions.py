"""Which permissions the user of an admin page has, for the admin of more than one room."""

from __future__ import annotations

from typing import Any

from django.db.models.options import Options
from django.http import HttpRequest


def has_permission(request: HttpRequest, opts: Options[Any], codename: str) -> bool:
    """Whether the user has a permission of the model with these options."""
    user: Any = request.user  # of the project's own model, which has permissions in an admin
    return bool(user.has_perm(f"{opts.app_label}.{codename}"))
