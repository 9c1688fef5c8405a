"""One shape for a problem and the command that solves it: Django's CheckMessage, with our id.

The system checks, the doctors and the checks of deployment files all use it, so that
SILENCED_SYSTEM_CHECKS and ``--fail-level`` reach each of them. ``obj`` names the examined thing.
``findings.toml`` has the sentences of each id.
https://docs.djangoproject.com/en/stable/ref/checks/#messages
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from django.core.checks import ERROR, INFO, WARNING, CheckMessage

ID: Final = "beanstalk_dispatch"

_LEVELS: Final = {"E": ERROR, "W": WARNING}
_WORDS: Final = {"ok": INFO, "warning": WARNING, "error": ERROR}


@functools.cache
def catalogue() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Return the findings of each origin by their numbers. Each is a table of sentences."""
    import tomllib  # noqa: PLC0415 - only where something is found

    return tomllib.loads(Path(__file__).with_name("findings.toml").read_text("utf-8"))


@functools.cache
def _texts() -> Mapping[str, Mapping[str, str]]:
    return {number: text for found in catalogue().values() for number, text in found.items()}


def ok(obj: str, msg: str) -> CheckMessage:
    """Return a finding that asks for nothing. It has no id."""
    return CheckMessage(INFO, msg, obj=obj)


def problem(number: str, obj: str | None = None, /, **facts: object) -> CheckMessage:
    """Return a finding of the catalogue, in whose sentences the facts are filled in.

    The letter of its number is its level.
    """
    text = _texts()[number]
    message, hint = text["message"].format(**facts), text.get("hint", "").format(**facts)
    return CheckMessage(_LEVELS[number[0]], message, hint=hint, obj=obj, id=f"{ID}.{number}")


def safely(obj: str, findings: Iterable[CheckMessage]) -> Iterator[CheckMessage]:
    """Yield the findings. An error of the project's own code is one of them and not a crash."""
    try:
        yield from findings
    except Exception as exc:
        yield problem("E101", obj, kind=type(exc).__name__, exc=exc)


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
    rows = [
        {
            "level": word_of(each),
            "id": each.id,
            "object": each.obj,
            "message": str(each.msg),
            "hint": str(each.hint or ""),
        }
        for each in findings
    ]
    numbers = {word: sum(row["level"] == word for row in rows) for word in _WORDS}
    return {"findings": rows, **numbers}
