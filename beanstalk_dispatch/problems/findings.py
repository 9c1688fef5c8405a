"""One shape for a problem and the command that solves it: Django's CheckMessage, with our id.

The system checks, the doctors and the checks of deployment files all use it, so that
SILENCED_SYSTEM_CHECKS and ``--fail-level`` reach each of them. ``obj`` names the examined thing.
https://docs.djangoproject.com/en/stable/ref/checks/#messages
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from django.core.checks import ERROR, INFO, WARNING, CheckMessage

ID: Final = "beanstalk_dispatch"
DOCS: Final = (
    "https://github.com/django-beanstalk-dispatch/django-beanstalk-dispatch/blob/main/docs"
)
"""The wheel does not contain the documentation."""

OVERWRITE: Final = "python manage.py beanstalk_eb --overwrite"
"""Writes the deployment files as they are needed."""

_LEVELS: Final = {"E": ERROR, "W": WARNING}
_WORDS: Final = {"ok": INFO, "warning": WARNING, "error": ERROR}


def ok(obj: str, msg: str) -> CheckMessage:
    """Return a finding that asks for nothing. It has no id."""
    return CheckMessage(INFO, msg, obj=obj)


def problem(number: str, obj: str, msg: str, hint: str = "") -> CheckMessage:
    """Return a finding of the catalogue. The letter of its number is its level."""
    return CheckMessage(_LEVELS[number[0]], msg, hint=hint, obj=obj, id=f"{ID}.{number}")


def safely(obj: str, findings: Iterable[CheckMessage]) -> Iterator[CheckMessage]:
    """Yield the findings. An error of the project's own code is one of them and not a crash."""
    try:
        yield from findings
    except Exception as exc:
        yield problem(
            "E101",
            obj,
            f"could not be examined: {type(exc).__name__}: {exc}",
            "correct it, and see the traceback with: python manage.py check",
        )


def word_of(finding: CheckMessage) -> str:
    """Return ``ok``, ``warning`` or ``error``."""
    return next(word for word in reversed(_WORDS) if finding.level >= _WORDS[word])


def lines(findings: Iterable[CheckMessage]) -> Iterator[str]:
    """Yield a line for each finding, and one for its hint."""
    for each in findings:
        number = (each.id or "").removeprefix(f"{ID}.")
        examined = f"{each.obj}: " if each.obj else ""
        yield f"{word_of(each):<8} {number:<4} {examined}{each.msg}"
        if each.hint:
            yield f"{'':<13} → {each.hint}"


def as_dict(findings: Iterable[CheckMessage]) -> dict[str, Any]:
    """Return the findings for programs, with the number of each level."""
    found = list(findings)
    rows = [
        {
            "level": word_of(each),
            "id": each.id,
            "object": each.obj,
            "message": str(each.msg),
            "hint": str(each.hint or ""),
        }
        for each in found
    ]
    return {
        "findings": rows,
        **{word: sum(row["level"] == word for row in rows) for word in _WORDS},
    }
