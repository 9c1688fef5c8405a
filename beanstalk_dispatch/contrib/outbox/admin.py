"""The outbox in Django's admin, read-only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from beanstalk_dispatch.contrib.read_only_admin import ReadOnlyAdmin

from .models import OutboxMessage
from .status import delayed


class DelayedFilter(admin.SimpleListFilter):
    """A filter that tells the messages which SQS should have from those that are due much later."""

    title = "due"
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the values of the filter."""
        return [("now", "now"), ("later", "later")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[OutboxMessage]
    ) -> QuerySet[OutboxMessage] | None:
        """Return the messages for now or for later; None for all."""
        if self.value() not in {"now", "later"}:
            return None
        later = delayed(timezone.now())
        return queryset.filter(later) if self.value() == "later" else queryset.exclude(later)


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    """The admin's page of the waiting messages, without the arguments of tasks. It is read-only."""

    list_display = ("created_at", "due_at", "queue", "function", "task_id", "failures", "error")
    list_filter = ("queue", DelayedFilter)
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
