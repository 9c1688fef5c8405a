"""The outbox in Django's admin, read-only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from beanstalk_dispatch.contrib.read_only_admin import ReadOnlyAdmin

from .models import OutboxMessage


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    """The admin's page of the waiting messages, without the arguments of tasks. It is read-only."""

    list_display = ("created_at", "queue", "function", "task_id", "failures", "error")
    list_filter = ("queue",)
    search_fields = ("task_id", "function")
    fields = (
        "task_id", "function", "queue", "fifo_group", "created_at", "due_at", "available_at",
        "failures", "error",
    )  # fmt: skip
    ordering = ("id",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a deleted message is a lost task.

        ``beanstalk_outbox --discard`` does it.
        """
        return False
