"""The admin's pages: queues, the dead letters of one queue, one of them, and actions on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import django
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.contrib.read_only_admin import UNFOLD, ReadOnlyAdmin
from beanstalk_dispatch.dead_letters.dead_letter import ReceivedDeadLetter
from beanstalk_dispatch.dead_letters.lines import sample_size
from beanstalk_dispatch.dead_letters.queue import FIND_SIZE, SAMPLE_SIZE, DeadLetterQueue
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, ConfigurationError
from beanstalk_dispatch.logging.log_lines import duration
from beanstalk_dispatch.queues.running import what_runs
from beanstalk_dispatch.queues.waiting import COLUMNS as QUEUE_COLUMNS
from beanstalk_dispatch.queues.waiting import (
    QueueStatus,
    pause,
    pause_limit,
    problem_of,
    queue_statuses,
    resume,
)

from .forms import ActionForm, SampleForm
from .models import DeadLetter
from .progress import log_action, progress_response
from .tables import letter_tables, running_tables

_TEMPLATES: Final = "admin/beanstalk_workbench/deadletter"
_MAX_RECEIVES: Final = 20
"""The number of receives of the page of one dead letter: SQS may return fewer than ten in each."""
_RED: Final = "color: var(--error-fg, #d64545); font-weight: bold"
"""The style of what needs somebody. Unfold has no such variable."""
_VERBS: Final = {"redrive": "redriven", "discard": "discarded"}


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """The pages of the admin that ask SQS.

    Each needs the permission to view; an action needs its own as well.
    """

    # --- permissions -------------------------------------------------------------------------

    def has_redrive_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may send dead letters back to their queues."""
        return self.has_own_permission(request, "redrive_deadletter")

    def has_pause_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may pause and resume queues."""
        return self.has_own_permission(request, "pause_queue")

    def has_arguments_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may see the arguments of tasks, which may hold personal data."""
        return self.has_own_permission(request, "view_deadletter_arguments")

    def _may_act(self, request: HttpRequest) -> bool:
        return self.has_redrive_permission(request) or self.has_delete_permission(request)

    def _has_permission_for(self, request: HttpRequest, action: str) -> bool:
        if action == "redrive":
            return self.has_redrive_permission(request)
        return self.has_delete_permission(request)

    # --- addresses ---------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Return only the pages of this class: those of ModelAdmin would ask the database."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        pages: list[tuple[str, Callable[..., HttpResponseBase], str]] = [
            ("", self.queues_view, "changelist"),
            # quote() writes an underscore as _5F, so no queue has these addresses.
            ("_running/", self.running_view, "running"),
            ("_find/<str:letter>/", self.dead_letter_view, "find"),
            ("<str:queue>/act/", self.action_view, "act"),
            ("<str:queue>/pause/", self.pause_view, "pause"),
            ("<str:queue>/letter/<str:letter>/", self.dead_letter_view, "letter"),
            ("<str:queue>/", self.dead_letters_view, "change"),
        ]
        return [
            path(route, self._with_permission(view), name=f"{name}_{page}")
            for route, view, page in pages
        ]

    def _with_permission(
        self, view: Callable[..., HttpResponseBase]
    ) -> Callable[..., HttpResponseBase]:
        def guarded(request: HttpRequest, **arguments: str) -> HttpResponseBase:
            if not self.has_view_permission(request):
                raise PermissionDenied
            request.current_app = self.admin_site.name
            return view(request, **{key: unquote(each) for key, each in arguments.items()})

        return self.admin_site.admin_view(guarded)

    def _page_url(self, page: str, *arguments: str) -> str:
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}",
            args=[quote(each) for each in arguments],
            current_app=self.admin_site.name,
        )

    # --- pages -------------------------------------------------------------------------------

    def queues_view(self, request: HttpRequest) -> HttpResponse:
        """Show every queue with its figures, and links to the dead-letter queues."""
        context: dict[str, Any] = {"columns": [*QUEUE_COLUMNS, "Paused"]}
        try:
            context["queues"] = [
                (each, self._queue_url(each), _paused_for(each)) for each in queue_statuses()
            ]
        except BeanstalkDispatchError as exc:
            context["problem"] = problem_of(exc)
        return self._render_page(request, "queues", "Queues", context)

    def _queue_url(self, status: QueueStatus) -> str:
        return self._page_url("change", status.name) if status.is_dead_letter_queue else ""

    def running_view(self, request: HttpRequest) -> HttpResponse:
        """Show the workers, the tasks that run now, and the next runs of periodic tasks."""
        context: dict[str, Any] = {}
        try:
            found = what_runs()
        except BeanstalkDispatchError as exc:
            context["problem"] = problem_of(exc)
        except ConfigurationError as exc:
            context["problem"] = str(exc)
        else:
            tables = running_tables(found, partial(self._result_url, request))
            context = {"problem": found.problem, "tables": tables}
        return self._render_page(request, "running", "What runs now", context)

    def _result_url(self, request: HttpRequest, task_id: str) -> str:
        """Return the address of a task's result; empty if there is none for this user."""
        if get_config().results != "db":
            return ""
        return self.page_of_other_room(request, "beanstalk_results_storedresult", "change", task_id)

    def dead_letters_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        """Show a sample of the messages of one dead-letter queue, in groups and one by one."""
        form = SampleForm(request.GET, sees_arguments=self.has_arguments_permission(request))
        context: dict[str, Any] = {"form": form, "is_filtered": bool(request.GET)}
        if form.is_valid():
            try:
                dead_letters = DeadLetterQueue.open(queue)
                sample = dead_letters.sample(form.filters(), limit=form.sample_size())
            except BeanstalkDispatchError as exc:
                context["problem"] = problem_of(exc)
            else:
                context |= {
                    "sample": sample,
                    "sample_size": sample_size(sample),
                    "tables": letter_tables(
                        sample,
                        partial(self._page_url, "letter", queue),
                        has_boxes=self._may_act(request),
                    ),
                }
        return self._render_page(request, "letters", queue, context, queue)

    def dead_letter_view(self, request: HttpRequest, letter: str, queue: str = "") -> HttpResponse:
        """Show one dead letter in full; its arguments only to users who may see them.

        Without a queue, look for it in every dead-letter queue.
        """
        context: dict[str, Any] = {"id": letter, "looked_at": SAMPLE_SIZE, "all": FIND_SIZE}
        try:
            for name in [queue] if queue else _dead_letter_queues():
                if found := _find(name, letter):
                    queue = name
                    context |= {"letter": found, "facts": self._facts_of(request, found)}
                    context["result_url"] = self._result_url(request, found.id)
                    break
        except BeanstalkDispatchError as exc:
            context["problem"] = problem_of(exc)
        return self._render_page(request, "letter", f"Letter {letter}", context, queue)

    def _facts_of(self, request: HttpRequest, found: ReceivedDeadLetter) -> dict[str, str]:
        if self.has_arguments_permission(request):
            return found.facts(has_arguments=True)
        hidden = "hidden: you have no permission to view them"
        return {**found.facts(has_arguments=False), "arguments": hidden}

    # --- actions -----------------------------------------------------------------------------

    def pause_view(self, request: HttpRequest, queue: str) -> HttpResponse:
        """Pause a queue, or resume it. Only a POST does anything."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_pause_permission(request):
            raise PermissionDenied
        verb, act = ("paused", pause) if "pause" in request.POST else ("resumed", resume)
        try:
            name = act(queue)
        except (BeanstalkDispatchError, ConfigurationError) as exc:
            messages.error(request, str(exc))
        else:
            log_action(request, queue=name, verb=verb, message=f"{verb.capitalize()}.")
            messages.success(request, f"{verb.capitalize()}: {name}")
            if verb == "paused" and (limit := pause_limit(name)):
                messages.warning(request, limit)
        return HttpResponseRedirect(self._page_url("changelist"))

    def action_view(self, request: HttpRequest, queue: str) -> HttpResponseBase:
        """Ask for confirmation, and then act. Only a POST does anything."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        form = ActionForm(request.POST, sees_arguments=self.has_arguments_permission(request))
        if not form.is_valid():
            return self._refuse_action(request, queue, form)
        action = form.cleaned_data["action"]
        if not self._has_permission_for(request, action):
            raise PermissionDenied
        is_named = action == "redrive" or form.cleaned_data["name"].strip() == queue
        if not (form.cleaned_data["confirmed"] and is_named):
            return self._confirmation_page(request, queue, form)
        try:
            dead_letters = DeadLetterQueue.open(queue)
        except BeanstalkDispatchError as exc:
            context = {"problem": problem_of(exc)}
            return self._render_page(request, "letters", queue, context, queue)
        return self._run_action(request, dead_letters, form)

    def _refuse_action(self, request: HttpRequest, queue: str, form: ActionForm) -> HttpResponse:
        for errors in form.errors.values():
            for error in errors:
                messages.error(request, str(error))
        return HttpResponseRedirect(self._page_url("change", queue))

    def _confirmation_page(
        self, request: HttpRequest, queue: str, form: ActionForm
    ) -> HttpResponse:
        given = form.cleaned_data
        context = {
            "given": given,
            "repeated_fields": form.repeated_fields(),
            "description": _describe_selection(form),
            "is_wrong_name": bool(given["confirmed"]),
            "back": self._dead_letters_url(queue, form),
        }
        return self._render_page(request, "confirm", _title(form), context, queue)

    def _run_action(
        self, request: HttpRequest, dead_letters: DeadLetterQueue, form: ActionForm
    ) -> HttpResponseBase:
        given, name = form.cleaned_data, dead_letters.queue.name
        filters = form.filters(given["ids"])
        if given["action"] == "redrive":
            steps = dead_letters.redrive(filters, reset_attempts=given["reset_attempts"])
        else:
            steps = dead_letters.discard(filters)
        verb = _VERBS[given["action"]]
        entry = log_action(
            request,
            queue=name,
            verb=verb,
            message=f"{verb.capitalize()}: {_describe_selection(form, has_argument=False)}.",
        )
        context = self._page_context(request, _title(form), name) | {
            "verb": verb,
            "back": self._dead_letters_url(name, form),
        }
        return progress_response(request, steps, entry, context)

    def _dead_letters_url(self, queue: str, form: ActionForm) -> str:
        return f"{self._page_url('change', queue)}?{form.query()}"

    # --- what every page has -----------------------------------------------------------------

    def _render_page(
        self, request: HttpRequest, template: str, title: str, context: dict[str, Any],
        queue: str = "",
    ) -> TemplateResponse:  # fmt: skip
        whole = self._page_context(request, title, queue) | context
        return TemplateResponse(request, f"{_TEMPLATES}/{template}.html", whole)

    def _page_context(self, request: HttpRequest, title: str, queue: str) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "queue": queue,
            "object": DeadLetter(pk=queue) if queue else None,  # for the breadcrumbs of Unfold
            "unfold": UNFOLD,
            "red": _RED,
            "may_redrive": self.has_redrive_permission(request),
            "may_delete": self.has_delete_permission(request),
            "may_act": self._may_act(request),
            "may_pause": self.has_pause_permission(request),
            # Django 6.1 has made a list of the breadcrumbs.
            "breadcrumbs_are_a_list": django.VERSION >= (6, 1),
        }


def _dead_letter_queues() -> list[str]:
    return [each.name for each in queue_statuses() if each.is_dead_letter_queue]


def _find(queue: str, letter: str) -> ReceivedDeadLetter | None:
    """Receive few messages: each receive counts, and hides messages from others for a time."""
    receives = iter(range(_MAX_RECEIVES))
    return DeadLetterQueue.open(queue).find(
        letter, limit=SAMPLE_SIZE, is_stopping=lambda: next(receives, None) is None
    )


def _paused_for(status: QueueStatus) -> str:
    since = status.paused_since
    return "" if since is None else duration(time.time() - since)


def _title(form: ActionForm) -> str:
    """Return the heading of the pages of an action."""
    return f"{form.cleaned_data['action'].capitalize()} letters"


def _describe_selection(form: ActionForm, *, has_argument: bool = True) -> str:
    """Return the dead letters that an action is about, in words."""
    given = form.cleaned_data
    if given["scope"] == "selected":
        return f"{len(given['ids'])} selected: {', '.join(sorted(given['ids']))}"
    description = form.description(has_argument=has_argument)
    return f"all letters with {description}" if description else "all letters"
