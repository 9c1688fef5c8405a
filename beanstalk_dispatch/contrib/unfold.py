"""The classes of Unfold's admin, for the pages of more than one room."""

from __future__ import annotations

from typing import Final

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
