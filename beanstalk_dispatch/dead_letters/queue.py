"""One dead-letter queue, for command and admin: sample, redrive and discard its messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, SendError
from beanstalk_dispatch.queues.waiting import (
    find_queue,
    problem_of,
    queue_statuses,
    source_names,
)
from beanstalk_dispatch.sqs.administration import get_attributes
from beanstalk_dispatch.sqs.queue import Queue, Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .dead_letter import Filters, ReceivedDeadLetter, dead_letter_of
from .move_task import move_all
from .receiving import HIDE_SECONDS, HeldMessages
from .redrive import Redrive, open_target
from .sweep import Steps, Sweep, SweepOptions, SweepReport

SAMPLE_SIZE: Final = 100
"""The number of dead letters in a sample if no other is asked for."""
FIND_SIZE: Final = 10_000
"""The number of dead letters among which one is searched by its id."""

_DEFAULTS: Final = SweepOptions()
_ALL: Final = Filters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A sample of a dead-letter queue.

    SQS promises neither which messages it has, nor all of them.
    """

    dead_letters: list[ReceivedDeadLetter]
    """The dead letters that pass the filters, the newest first."""
    looked_at: int
    about: int | None
    """About how many messages the queue has; None if these credentials may not ask."""
    still_hidden: int
    """The number of messages that could not be made visible again."""


class DeadLetterQueue:
    """One dead-letter queue and its messages."""

    def __init__(self, queue: Queue, sources: tuple[str, ...]) -> None:
        self.queue = queue
        self.sources = sources
        """The own names of the queues whose redrive policy names this one."""

    @classmethod
    def open(cls, name: str) -> DeadLetterQueue:
        """Open the dead-letter queue ``name``: an alias, or the own name of an alias's one.

        Raise UnknownQueue also if it is not known to be a dead-letter queue: receiving from another
        queue would bring its messages nearer to their dead-letter queue. Raise SendError if SQS
        cannot be asked.
        """
        known = queue_statuses()
        queue = find_queue(name, known)
        return cls(queue, source_names(queue, known))

    def about(self) -> int | None:
        """Return about how many messages the queue has; None if these credentials may not ask."""
        try:
            return get_attributes(self.queue).total
        except SendError:
            return None

    def sample(
        self, filters: Filters = _ALL, *,
        limit: int = SAMPLE_SIZE, hide: int = HIDE_SECONDS,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> Sample:  # fmt: skip
        """Receive up to ``limit`` messages; each is visible again when this returns.

        ``is_stopping`` is asked before each receive. Raise SendError if a receive fails.
        """
        dead_letters: list[ReceivedDeadLetter] = []
        looked_at, about = 0, self.about()
        with closing(HeldMessages(self.queue, hide=hide)) as held:
            while looked_at < limit and not (held.is_over or is_stopping()):
                received = held.receive(min(limit - looked_at, MAX_BATCH_ENTRIES))
                looked_at += len(received)
                dead_letters += [
                    each for each in map(self._read_received, received) if filters.match(each)
                ]
                if filters.ids and dead_letters:
                    break
        dead_letters.sort(key=lambda each: -each.at)
        return Sample(
            dead_letters=dead_letters,
            looked_at=looked_at,
            about=about,
            still_hidden=held.still_hidden,
        )

    def find(
        self, dead_letter_id: str, *,
        limit: int = FIND_SIZE, hide: int = HIDE_SECONDS,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> ReceivedDeadLetter | None:  # fmt: skip
        """Return the dead letter with a task id or SQS id, if it is among the first ``limit``."""
        filters = Filters(ids=frozenset({dead_letter_id}))
        found = self.sample(filters, limit=limit, hide=hide, is_stopping=is_stopping)
        return found.dead_letters[0] if found.dead_letters else None

    def redrive(
        self, filters: Filters = _ALL, options: SweepOptions = _DEFAULTS, *,
        to: str | None = None, reset_attempts: bool = False,
    ) -> Steps:  # fmt: skip
        """Send dead letters back to their queues, and yield the report after each step.

        Each message is sent first and deleted then. To end the run, close the iterator: a begun
        step is finished, and every message that was only received is visible again. Without filters
        SQS moves the messages itself if it can. Raise UnknownQueue or SendError before the first
        step.
        """
        config, report = get_config(), SweepReport(about=self.about())
        redrive = Redrive(
            queue=self.queue,
            sources=self.sources,
            config=config,
            to=None if to is None else open_target(to, self.queue, self.sources),
            reset_attempts=reset_attempts,
        )
        is_plain = not (filters or options.limit or options.dry_run or to or reset_attempts)
        if is_plain and (arn := self._movable_arn()):
            try:
                yield from move_all(self.queue, arn, report, rate=options.rate)
            except SendError as exc:
                report.by_sqs, report.note = False, problem_of(exc)
            else:
                return
        act = redrive.check if options.dry_run else redrive.send
        yield from self._run_steps(filters, options, act, report)

    def discard(self, filters: Filters = _ALL, options: SweepOptions = _DEFAULTS) -> Steps:
        """Delete dead letters, and yield the report after each step. It cannot be undone."""
        report = SweepReport(about=self.about())
        yield from self._run_steps(filters, options, None, report)

    def purge(self) -> None:
        """Have SQS delete every message, which takes up to a minute. It cannot be undone.

        SQS takes one purge a minute. Raise SendError if it refuses.
        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_PurgeQueue.html
        """
        self.queue.request("purge_queue", QueueUrl=self.queue.url)

    def _run_steps(
        self, filters: Filters, options: SweepOptions,
        prepare: Callable[[ReceivedDeadLetter], None] | None, report: SweepReport,
    ) -> Steps:  # fmt: skip
        run = Sweep(
            self.queue, filters, options, read=self._read_received, prepare=prepare, report=report
        )
        yield from run.steps()

    def _read_received(self, received: Received) -> ReceivedDeadLetter:
        return dead_letter_of(received, get_config(), sources=self.sources)

    def _movable_arn(self) -> str | None:
        """Return the queue's ARN if SQS can move every message, and this package has sent none.

        SQS knows the source only of the messages that it moved itself.
        """
        if not self.sources or get_config().is_dead_letter_queue(self.queue.name):
            return None
        try:
            found = self.sample(limit=MAX_BATCH_ENTRIES).dead_letters
            if not found or any(each.is_from_package for each in found):
                return None
            return get_attributes(self.queue).arn or None
        except BeanstalkDispatchError:
            return None


def redrive_each(
    names: Sequence[str], filters: Filters, options: SweepOptions, *,
    to: str | None, reset_attempts: bool,
) -> Steps:  # fmt: skip
    """Redrive from one dead-letter queue after the other, as ``redrive`` does, with one report."""
    total = SweepReport(about=0)
    for name in names:
        latest = total
        steps = DeadLetterQueue.open(name).redrive(
            filters, options, to=to, reset_attempts=reset_attempts
        )
        with closing(steps):
            for report in steps:
                latest = total.plus(report)
                yield latest
        total = latest
        if total.error:
            return
        if options.limit is not None:
            options = replace(options, limit=options.limit - report.done)
        if filters.ids:
            filters = replace(filters, ids=frozenset(total.not_found))
            if not filters.ids:
                return
