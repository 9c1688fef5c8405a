"""Dead letters and reports, as lines for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from beanstalk_dispatch.logging.log_lines import table

from .dead_letter import COLUMNS, GROUP_COLUMNS, ReceivedDeadLetter, grouped
from .queue import DeadLetterQueue, Sample
from .sweep import SweepReport

MAX_SHOWN: Final = 20
"""The number of dead letters that are listed below their groups."""

_IN_JSON: Final = (
    "id", "message_id", "function", "queue", "outcome", "exception", "attempts", "receive_count",
    "at", "signature", "is_from_package", "problem",
)  # fmt: skip


def sample_lines(dead_letters: DeadLetterQueue, sample: Sample) -> Iterator[str]:
    """Yield the groups of a sample, and its newest dead letters."""
    yield f"{dead_letters.queue.name}: {sample_size(sample)}"
    if not sample.dead_letters:
        return
    yield ""
    groups = [each.cells(sample.looked_at) for each in grouped(sample.dead_letters)]
    yield from table(GROUP_COLUMNS, groups)
    yield ""
    yield from table(COLUMNS, [each.cells() for each in sample.dead_letters[:MAX_SHOWN]])
    if len(sample.dead_letters) > MAX_SHOWN:
        yield f"… and {len(sample.dead_letters) - MAX_SHOWN} more"


def sample_size(sample: Sample) -> str:
    """Return the size of the sample beside that of the queue, in words."""
    about = "an unknown number" if sample.about is None else f"about {sample.about:,}"
    shown = len(sample.dead_letters)
    matching = "" if shown == sample.looked_at else f"{shown:,} match in a "
    hidden = f"; {sample.still_hidden:,} stay hidden for a time" if sample.still_hidden else ""
    return f"{matching}sample of {sample.looked_at:,} of {about}{hidden}"


def dead_letter_lines(dead_letter: ReceivedDeadLetter) -> Iterator[str]:
    """Yield the lines of one dead letter in full, with the arguments of its task."""
    for name, value in dead_letter.facts(has_arguments=True).items():
        yield f"{name:<11}{value}"
    if dead_letter.traceback:
        yield ""
        yield from dead_letter.traceback.splitlines()


def report_lines(report: SweepReport, *, verb: str, dry_run: bool) -> Iterator[str]:
    """Yield the result of a run: the number of dead letters that are done, and those that stay."""
    if report.note:
        yield f"SQS does not move the letters itself: {report.note}"
    done = f"would be {verb}" if dry_run else verb
    looked_at = "" if report.by_sqs else f", {report.looked_at:,} looked at"
    yield f"{report.done:,} {done}{looked_at}, {report.failed:,} stay"
    for dead_letter_id, reason in report.reasons.items():
        yield f"  {dead_letter_id}: {reason}"
    for dead_letter_id in report.not_found:
        yield f"  {dead_letter_id}: not found"
    for dead_letter_id in report.not_deleted:
        yield f"  {dead_letter_id}: {verb}, but not deleted; discard it"
    if report.still_hidden:
        yield f"{report.still_hidden:,} letters stay hidden for a time: they could not be released"


def dead_letter_as_json(
    dead_letter: ReceivedDeadLetter, *, is_full: bool = False
) -> dict[str, Any]:
    """Return a dead letter as a JSON object.

    Only ``is_full`` shows arguments, traceback and body.
    """
    values = {name: getattr(dead_letter, name) for name in _IN_JSON}
    found: dict[str, Any] = {name: None if value == "" else value for name, value in values.items()}
    if is_full:
        message = dead_letter.message
        found |= {
            "args": message and message.args,
            "kwargs": message and message.kwargs,
            "traceback": dead_letter.traceback,
            "body": dead_letter.body,
        }
    return found


def sample_as_json(dead_letters: DeadLetterQueue, sample: Sample) -> dict[str, Any]:
    """Return a sample as a JSON object."""
    return {
        "dead_letter_queue": dead_letters.queue.name,
        "sources": list(dead_letters.sources),
        "about": sample.about,
        "looked_at": sample.looked_at,
        "still_hidden": sample.still_hidden,
        "groups": [
            asdict(each) | {"function": each.function or None, "queue": each.queue or None}
            for each in grouped(sample.dead_letters)
        ],
        "letters": [dead_letter_as_json(each) for each in sample.dead_letters],
    }


def report_as_json(report: SweepReport) -> dict[str, Any]:
    """Return a report as a JSON object."""
    return asdict(report) | {"is_complete": report.is_complete}
