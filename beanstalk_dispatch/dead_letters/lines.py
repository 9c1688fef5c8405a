"""Letters and reports, as lines for a terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from beanstalk_dispatch.logging.log_lines import escaped

from .letters import Letter, grouped
from .queue import DeadLetters, Sample
from .sweep import SweepReport
from .terminal import age, table

MAX_SHOWN: Final = 20
"""Letters that are listed below their groups."""


def sample_lines(dead_letters: DeadLetters, sample: Sample) -> Iterator[str]:
    """The groups of a sample, and its newest letters."""
    yield f"{dead_letters.queue.name}: {sample_size(sample)}"
    if not sample.letters:
        return
    yield ""
    yield from table(
        ["LETTERS", "FUNCTION", "EXCEPTION", "QUEUE", "NEWEST", "OLDEST"],
        [
            [str(each.count), each.function or "?", each.exception, each.queue or "?",
             age(each.newest), age(each.oldest)]
            for each in grouped(sample.letters)
        ],
    )  # fmt: skip
    yield ""
    yield from table(
        ["ID", "FUNCTION", "AGE", "EXCEPTION"],
        [
            [each.id, each.function or "?", age(each.when), each.exception]
            for each in sample.letters[:MAX_SHOWN]
        ],
    )
    if len(sample.letters) > MAX_SHOWN:
        yield f"… and {len(sample.letters) - MAX_SHOWN} more"


def sample_size(sample: Sample) -> str:
    """How much of the queue the sample is."""
    about = "an unknown number" if sample.about is None else f"about {sample.about:,}"
    shown = len(sample.letters)
    matching = "" if shown == sample.looked_at else f"{shown:,} match in a "
    hidden = f"; {sample.still_hidden:,} stay hidden for a time" if sample.still_hidden else ""
    return f"{matching}sample of {sample.looked_at:,} of {about}{hidden}"


def letter_lines(letter: Letter) -> Iterator[str]:
    """One letter in full, with the arguments of its task."""
    facts = {
        "id": letter.id,
        "SQS id": letter.message_id,
        "function": letter.function or "?",
        "queue": letter.queue or "?",
        "outcome": letter.outcome or "?",
        "exception": letter.exception,
        "attempts": str(letter.attempts),
        "receives": str(letter.receive_count),
        "failed" if letter.is_from_package else "sent": f"{letter.when:%Y-%m-%d %H:%M:%S} UTC",
        "signature": letter.signature,
    }
    if letter.message:
        facts["args"] = json.dumps(letter.message.args)
        facts["kwargs"] = json.dumps(letter.message.kwargs)
    if letter.problem:
        facts["problem"] = letter.problem
    for name, value in facts.items():
        yield f"{name:<11}{value}"
    if letter.traceback:
        yield ""
        yield from letter.traceback.splitlines()
    if letter.message is None:
        yield ""
        yield escaped(letter.body)


def report_lines(report: SweepReport, *, verb: str, dry_run: bool) -> Iterator[str]:
    """What a run has done, and what it has left undone."""
    if report.note:
        yield f"SQS does not move the letters itself: {report.note}"
    done = f"would be {verb}" if dry_run else verb
    looked_at = "" if report.by_sqs else f", {report.looked_at:,} looked at"
    yield f"{report.done:,} {done}{looked_at}, {report.failed:,} stay"
    for letter_id, reason in report.reasons.items():
        yield f"  {letter_id}: {reason}"
    for letter_id in report.not_found:
        yield f"  {letter_id}: not found"
    for letter_id in report.not_deleted:
        yield f"  {letter_id}: {verb}, but not deleted; discard it"
    if report.still_hidden:
        yield f"{report.still_hidden:,} letters stay hidden for a time: they could not be released"


def letter_as_json(letter: Letter, *, is_full: bool = False) -> dict[str, Any]:
    """A letter as a JSON object; only in full with the arguments, the traceback and the body."""
    found: dict[str, Any] = {
        "id": letter.id,
        "message_id": letter.message_id,
        "function": letter.function or None,
        "queue": letter.queue or None,
        "outcome": letter.outcome or None,
        "exception": letter.exception,
        "attempts": letter.attempts,
        "receive_count": letter.receive_count,
        "at": letter.at,
        "signature": letter.signature,
        "is_from_package": letter.is_from_package,
        "problem": letter.problem or None,
    }
    if is_full:
        message = letter.message
        found |= {
            "args": message and message.args,
            "kwargs": message and message.kwargs,
            "traceback": letter.traceback,
            "body": letter.body,
        }
    return found


def sample_as_json(dead_letters: DeadLetters, sample: Sample) -> dict[str, Any]:
    """A sample as a JSON object."""
    return {
        "dead_letter_queue": dead_letters.queue.name,
        "sources": list(dead_letters.sources),
        "about": sample.about,
        "looked_at": sample.looked_at,
        "still_hidden": sample.still_hidden,
        "groups": [
            {
                "count": each.count,
                "function": each.function or None,
                "exception": each.exception,
                "queue": each.queue or None,
                "oldest": each.oldest.timestamp(),
                "newest": each.newest.timestamp(),
            }
            for each in grouped(sample.letters)
        ],
        "letters": [letter_as_json(each) for each in sample.letters],
    }


def report_as_json(report: SweepReport) -> dict[str, Any]:
    """A report as a JSON object."""
    return asdict(report) | {"is_complete": report.is_complete}
