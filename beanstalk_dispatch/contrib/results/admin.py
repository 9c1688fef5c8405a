"""The admin's pages of results: to read, to cancel and to run again, not to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar, Final

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.utils.html import format_html

from beanstalk_dispatch import client
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.variables import RESULT_ARGUMENTS
from beanstalk_dispatch.contrib.read_only_admin import UNFOLD, ReadOnlyAdmin
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, ConfigurationError
from beanstalk_dispatch.logging.log_lines import escaped, escaped_lines

from .models import StoredResult
from .record import Progress, Status, without_count

_HIDDEN: Final = frozenset({"args", "kwargs", "return_value"})
"""The fields that may hold personal data, and have a permission of their own."""

_ARGUMENT: Final = "argument"
"""The word before a string that is searched for in the arguments."""

_BUTTONS: Final = {
    "cancel_tasks": "Cancel this task",
    "stop_tasks": "Stop this task now",
    "run_again": "Run this task again",
}
"""The actions of the list that the page of a task has a button for."""

_TRACEBACK: Final = '<pre style="white-space: pre-wrap; overflow-wrap: anywhere">{}</pre>'


@admin.register(StoredResult)
class StoredResultAdmin(ReadOnlyAdmin):
    """The admin's list of results, the newest first, in the order of the model's indexes."""

    list_display = ("function", "outcome", "enqueued_at", "duration", "attempts", "queue")
    list_filter = ("status", "enqueued_at")
    search_fields = ("id__exact", "function__exact")  # "=id" is iexact, which uses no index
    search_help_text = (
        f"A task id, the whole name of a task, or {_ARGUMENT}=TEXT if you may view arguments"
    )
    ordering: ClassVar = ("-enqueued_at",)
    show_full_result_count = False
    actions = tuple(_BUTTONS)

    # --- permissions -------------------------------------------------------------------------

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may cancel tasks."""
        return self.has_own_permission(request, "cancel_storedresult")

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may run tasks again."""
        return self.has_own_permission(request, "run_storedresult")

    def has_arguments_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may see the arguments of tasks, which may hold personal data."""
        return self.has_own_permission(request, "view_storedresult_arguments")

    # --- search ------------------------------------------------------------------------------

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search the arguments for the string after ``argument=``, if the user may see them.

        No index helps with that, so it reads each row that the filters leave.
        """
        prefix, separator, text = search_term.partition("=")
        if not (separator and prefix == _ARGUMENT and self.has_arguments_permission(request)):
            return super().get_search_results(request, queryset, search_term)
        found = Q()
        for each in {text, json.dumps(text)[1:-1]}:  # as it is typed, and as JSON writes a string
            found |= Q(args__contains=each) | Q(kwargs__contains=each)
        return queryset.filter(found), False

    # --- what is shown -----------------------------------------------------------------------

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields in the order of a task's life.

        Arguments only for users who may see them.
        """
        fields = [
            "id", "function", "queue", "outcome", "attempts", "enqueued_at", "started_at",
            "last_attempted_at", "finished_at", "duration", "how_far", "worker_ids", "failures",
            "args", "kwargs", "return_value", "expires_at",
        ]  # fmt: skip
        if self.has_arguments_permission(request):
            return fields
        return [each for each in fields if each not in _HIDDEN]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return all fields, so that none can be changed."""
        return self.get_fields(request, obj)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the page of a task, with a button for each action that the user may take."""
        allowed = self.get_actions(request)
        buttons = {action: label for action, label in _BUTTONS.items() if action in allowed}
        letter = self.page_of_other_room(
            request, "beanstalk_workbench_deadletter", "find", unquote(object_id)
        )
        context = {
            "task_buttons": buttons, "unfold": UNFOLD, "letter_url": letter,
            **(extra_context or {}),
        }  # fmt: skip
        return super().change_view(request, object_id, form_url, context)

    @admin.display(ordering="status")
    def outcome(self, result: StoredResult) -> str:
        """Return the status; for a task that has failed also the last exception."""
        errors = json.loads(result.errors)
        if result.status != Status.FAILED or not errors:
            return result.status
        name = errors[-1]["exception_class_path"].rpartition(".")[2]
        return f"{result.status}: {escaped(name)}"

    @admin.display
    def attempts(self, result: StoredResult) -> int:
        """Return the number of times that the task has started."""
        return len(without_count(json.loads(result.worker_ids)))

    @admin.display
    def duration(self, result: StoredResult) -> str:
        """Return the time from the start of the last attempt to its end, if it is over."""
        if result.finished_at is None or result.last_attempted_at is None:
            return "-"
        return f"{(result.finished_at - result.last_attempted_at).total_seconds():.3f} s"

    @admin.display(description="Progress")
    def how_far(self, result: StoredResult) -> str:
        """Return how far the task has said that it is."""
        found = json.loads(result.progress)
        return str(Progress(*found)) if found else "-"

    @admin.display(description="Tracebacks")
    def failures(self, result: StoredResult) -> str:
        """Return the errors of all attempts, the newest at the end."""
        found = "\n".join(escaped_lines(each["traceback"]) for each in json.loads(result.errors))
        return format_html(_TRACEBACK, found) if found else "-"

    # --- actions -----------------------------------------------------------------------------

    @admin.action(description="Cancel the selected tasks", permissions=["cancel"])
    def cancel_tasks(self, request: HttpRequest, results: QuerySet[StoredResult]) -> None:
        """Cancel each task that is not finished."""
        self._cancel_each(request, results, stop=False)

    @admin.action(description="Stop the selected tasks now", permissions=["cancel"])
    def stop_tasks(self, request: HttpRequest, results: QuerySet[StoredResult]) -> None:
        """Cancel each task that is not finished, and end it if it runs."""
        self._cancel_each(request, results, stop=True)

    def _cancel_each(
        self, request: HttpRequest, results: QuerySet[StoredResult], *, stop: bool
    ) -> None:
        def cancel(result: StoredResult) -> str:
            if result.status in {Status.SUCCESSFUL, Status.FAILED}:
                return ""
            client.cancel(result.id, stop=stop)
            return "Stopped." if stop else "Cancelled."

        done = "to be stopped" if stop else "cancelled"
        self._act_on_each(request, results, cancel, done=done, left="had finished before")

    @admin.action(description="Run the selected tasks again", permissions=["run"])
    def run_again(self, request: HttpRequest, results: QuerySet[StoredResult]) -> None:
        """Schedule each task again, as a new task with the same arguments."""

        def schedule(result: StoredResult) -> str:
            args, kwargs = json.loads(result.args), json.loads(result.kwargs)
            if args is None or kwargs is None:
                return ""
            call = client.Call(result.function, args, kwargs, headers=json.loads(result.headers))
            queue = get_config().alias_of(result.queue) or result.queue
            return f"Run again as {client.schedule(queue, call)}."

        variable = RESULT_ARGUMENTS.variable
        left = f"not run again: {variable} was not set when it was scheduled"
        self._act_on_each(request, results, schedule, done="run again", left=left)

    def _act_on_each(
        self,
        request: HttpRequest,
        results: QuerySet[StoredResult],
        action: Callable[[StoredResult], str],
        *,
        done: str,
        left: str,
    ) -> None:
        """Act on each task, and write each change in the admin's log."""
        acted = looked_at = 0
        for result in results:
            try:
                words = action(result)
            except (BeanstalkDispatchError, ConfigurationError) as exc:
                messages.error(request, f"{result}: {exc}")
                break
            looked_at += 1
            if words:
                acted += 1
                self.log_change(request, result, words)
        for level, number, what in (
            (messages.SUCCESS, acted, done),
            (messages.WARNING, looked_at - acted, left),
            (messages.WARNING, len(results) - looked_at, "left alone because of the error"),
        ):
            if number:
                messages.add_message(request, level, f"{number} task{pluralize(number)} {what}")
