"""The base of the package's admin pages, which show and never change, and their CSS classes."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

UNFOLD: Final = {
    "actions": "mt-4",
    "cell": "border-t border-base-200 dark:border-base-800 px-3 py-2 align-top",
    "column": "px-3 py-2 text-left",
    "error": "mb-3 px-3 py-2 rounded-default bg-red-100 text-red-700 dark:bg-red-500/20 "
    "dark:text-red-400",
    "field": "border border-base-200 dark:border-base-700 rounded-default px-3 py-2",
    "fields": "flex flex-wrap gap-4",
    "heading": "font-semibold mb-2 mt-4",
    "link": "text-primary-600 dark:text-primary-500",
    "results": "overflow-x-auto",
    "success": "mb-3 px-3 py-2 rounded-default bg-green-100 text-green-700 dark:bg-green-500/20 "
    "dark:text-green-400",
    "table": "w-full text-left",
    "text": "mb-3",
}
"""Unfold's CSS classes for each kind of element. They mean nothing to Django's own admin."""


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # Django's has no parameters
    """An admin page of rows, whose URL may ask only for columns that it filters or searches by.

    ModelAdmin lets a URL ask for every column, so that ``?args__startswith=`` shows the values that
    the page hides:
    https://docs.djangoproject.com/en/stable/ref/contrib/admin/#django.contrib.admin.ModelAdmin.lookup_allowed
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: rows come from tasks, from workers or from SQS."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a changed row could run anything that the table lists."""
        return False

    def has_own_permission(self, request: HttpRequest, codename: str) -> bool:
        """Return True if the user has a permission of this model."""
        user: Any = request.user  # of the project's own model, which has permissions in an admin
        return bool(user.has_perm(f"{self.opts.app_label}.{codename}"))

    def page_of_other_room(self, request: HttpRequest, model: str, page: str, key: str) -> str:
        """Return the address of a page about ``key``, such as the result of a dead letter's task.

        ``model`` is an app label and a model's name with an underscore between them. Return an
        empty string if the admin has no such page, or if the user may not view it.
        """
        label, _, name = model.rpartition("_")
        user: Any = request.user
        if not user.has_perm(f"{label}.view_{name}"):
            return ""
        try:
            return reverse(
                f"admin:{model}_{page}", args=[quote(key)], current_app=self.admin_site.name
            )
        except NoReverseMatch:
            return ""

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Return True if the page has a filter, a search or a date hierarchy for the column."""
        filters: Any = self.get_list_filter(request)
        filtered = {
            each[0] if isinstance(each, tuple | list) else getattr(each, "parameter_name", each)
            for each in filters
        }
        searched = {
            str(each).lstrip("^=@").removesuffix("__exact")
            for each in self.get_search_fields(request)
        }
        column = lookup.partition(LOOKUP_SEP)[0]
        return column in filtered | searched | {self.date_hierarchy}
