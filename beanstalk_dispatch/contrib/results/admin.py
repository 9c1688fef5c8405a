"""The admin's pages of results: to look at and to delete, not to change."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from .models import StoredResult


@admin.register(StoredResult)
class StoredResultAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # has none at run time
    """Lists the newest first. The indexes of the model are for its order and its filters."""

    list_display = ("function", "status", "queue", "enqueued_at", "finished_at", "id")
    list_filter = ("status",)
    search_fields = ("=id", "=function")
    search_help_text = "A task id, or the whole name of a task"
    ordering: ClassVar = ("-enqueued_at",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A result is written by the task."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A result is written by the task."""
        return False
