"""The input that the pages take from a request: filters, and an action on dead letters."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django import forms

from beanstalk_dispatch.contrib.read_only_admin import UNFOLD
from beanstalk_dispatch.dead_letters.dead_letter import Filters, parse_since
from beanstalk_dispatch.dead_letters.queue import SAMPLE_SIZE
from beanstalk_dispatch.queues.waiting import own_name

MAX_SAMPLE_SIZE: Final = 1000
"""The number of messages that one page receives at most: each ten of them are a request to SQS."""

_FILTERS: Final = ("function", "exception", "queue", "since", "argument")


class FilterForm(forms.Form):
    """The filters of dead letters. Every field is optional."""

    function = forms.CharField(required=False)
    exception = forms.CharField(
        required=False, help_text="A type; with a colon the start of the type and the message."
    )
    queue = forms.CharField(required=False, label="From queue")
    since = forms.CharField(required=False, help_text="30m, 2h, 3d or 2026-11-25T08:00")

    argument = forms.CharField(
        required=False, help_text='Part of the JSON of the arguments: "customer":12.'
    )

    def __init__(self, data: Any, *, sees_arguments: bool) -> None:
        """Take the data of a request. Who may not see arguments may not search by them either."""
        super().__init__(data)
        self._sees_arguments = sees_arguments
        if not sees_arguments and not data.get("argument"):
            del self.fields["argument"]
        for field in self.fields.values():
            field.widget.attrs["class"] = UNFOLD["field"]

    def clean_argument(self) -> str:
        """Refuse a search that would tell what the user may not see."""
        argument: str = self.cleaned_data["argument"]
        if argument and not self._sees_arguments:
            raise forms.ValidationError("You have no permission to view arguments.")
        return argument

    def clean_since(self) -> str:
        """Refuse a value that is neither an age nor a date."""
        since: str = self.cleaned_data["since"]
        if since:
            try:
                parse_since(since)
            except ValueError as exc:
                raise forms.ValidationError(str(exc)) from None
        return since

    def filters(self, ids: list[str] | None = None) -> Filters:
        """Return the filters of a valid form, for dead letters with these ids if any are given."""
        found = self.cleaned_data
        return Filters(
            functions=frozenset(filter(None, [found["function"]])),
            exceptions=frozenset(filter(None, [found["exception"]])),
            queues=frozenset(filter(None, [own_name(found["queue"])])),
            since=parse_since(found["since"]) if found["since"] else None,
            ids=frozenset(ids or ()),
            argument=found.get("argument", ""),
        )

    @property
    def given(self) -> dict[str, str]:
        """The filters of a valid form that are not empty."""
        return {name: self.cleaned_data[name] for name in _FILTERS if self.cleaned_data.get(name)}

    def description(self, *, has_argument: bool = True) -> str:
        """Return the filters of a valid form as ``name=value``, or nothing.

        Without ``has_argument``, as for a log, hide the text that is searched for in arguments.
        """
        shown = self.given
        if not has_argument and "argument" in shown:
            shown["argument"] = "hidden"
        return " ".join(f"{name}={value!r}" for name, value in shown.items())

    def query(self) -> str:
        """Return the filters of a valid form as the query of a URL."""
        return urlencode(self.given)


class SampleForm(FilterForm):
    """The filters of a page that shows dead letters, and the size of the sample."""

    sample = forms.IntegerField(
        required=False, min_value=1, max_value=MAX_SAMPLE_SIZE, label="Look at",
        help_text=f"Letters, at most {MAX_SAMPLE_SIZE}.",
    )  # fmt: skip

    def sample_size(self) -> int:
        """Return the number of messages that a valid form asks for."""
        size: int | None = self.cleaned_data["sample"]
        return size or SAMPLE_SIZE


class ActionForm(FilterForm):
    """An action on the dead letters that are selected, or on all that match the filters."""

    action = forms.ChoiceField(choices=[("redrive", "redrive"), ("discard", "discard")])
    scope = forms.ChoiceField(choices=[("selected", "selected"), ("all", "all")])
    ids = forms.MultipleChoiceField(required=False)
    every = forms.CharField(required=False)
    """All ids of the page, if the box above the others is ticked."""
    reset_attempts = forms.BooleanField(required=False)
    confirmed = forms.BooleanField(required=False)
    name = forms.CharField(required=False)
    """The typed name of the queue, which an action that cannot be undone needs."""

    def __init__(self, data: Any, *, sees_arguments: bool) -> None:
        super().__init__(data, sees_arguments=sees_arguments)
        self.fields["ids"].choices = [(each, each) for each in data.getlist("ids")]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Refuse an action on a selection of nothing, which would be one on everything."""
        found: dict[str, Any] = super().clean() or self.cleaned_data
        if found.get("every"):
            found["ids"] = found["every"].split()
        if found.get("scope") == "selected" and not found.get("ids"):
            raise forms.ValidationError("No letter is selected.")
        if found.get("scope") == "all":
            found["ids"] = []
        else:  # a selected letter is meant, although the time of ``since`` has passed on
            found |= dict.fromkeys(_FILTERS, "")
        return found

    def repeated_fields(self) -> list[tuple[str, str]]:
        """Return the names and values that the page of the confirmation sends again."""
        found = self.cleaned_data
        return [
            ("action", found["action"]),
            ("scope", found["scope"]),
            *self.given.items(),
            *(("ids", each) for each in found["ids"]),
        ]
