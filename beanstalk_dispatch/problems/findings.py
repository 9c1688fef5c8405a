"""What the doctor finds: a status, what is the case, and what to type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

DOCS: Final = (
    "https://github.com/django-beanstalk-dispatch/django-beanstalk-dispatch/blob/main/docs"
)
"""The wheel does not contain the documentation."""


class FindingStatus(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, or it cannot be known; look at it."""
    FAILURE = "failure"
    """Messages are lost or not run until it is corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor."""

    status: FindingStatus
    topic: str
    """What was looked at, in one word, or the id of a system check."""
    message: str
    """What is the case, in a sentence."""
    hint: str = ""
    """What to type. Empty if there is nothing to do."""


def ok(topic: str, message: str) -> Finding:
    """There is nothing to do."""
    return Finding(status=FindingStatus.OK, topic=topic, message=message)


def warning(topic: str, message: str, hint: str = "") -> Finding:
    """Someone should look at it."""
    return Finding(status=FindingStatus.WARNING, topic=topic, message=message, hint=hint)


def failure(topic: str, message: str, hint: str) -> Finding:
    """Something must be corrected."""
    return Finding(status=FindingStatus.FAILURE, topic=topic, message=message, hint=hint)


def safely(topic: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings. An error of the project's own code is one of them and not a crash."""
    try:
        yield from findings
    except Exception as exc:
        yield failure(
            topic,
            f"could not be examined: {type(exc).__name__}: {exc}",
            "correct it, and see the traceback with: python manage.py check",
        )


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """The findings for people: one line each, and one for what to type."""
    for each in findings:
        yield f"{each.status:<8} {each.topic}: {each.message}"
        if each.hint:
            yield f"{'':<8} → {each.hint}"


def as_dict(findings: Iterable[Finding]) -> dict[str, Any]:
    """The findings for programs, with the number of each status."""
    found = list(findings)
    return {
        "findings": [asdict(each) for each in found],
        **{status.value: sum(e.status is status for e in found) for status in FindingStatus},
    }
