"""One dead-letter queue, for the command and the admin: sample, redrive and discard its letters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import BeanstalkDispatchError, SendError
from beanstalk_dispatch.queues.waiting import (
    find_queue,
    own_name,
    problem_of,
    queue_statuses,
    source_names,
)
from beanstalk_dispatch.sqs import administration
from beanstalk_dispatch.sqs.queue import Queue, Received
from beanstalk_dispatch.sqs.quotas import MAX_BATCH_ENTRIES

from .letters import Filters, Letter, read_letter
from .move_task import move_all
from .receiving import HIDE_SECONDS, Look
from .redrive import Redrive, open_target
from .sweep import Steps, Sweep, SweepOptions, SweepReport

SAMPLE_SIZE: Final = 100
"""Letters that a look shows if nothing else is asked for."""
FIND_SIZE: Final = 10_000
"""Letters among which one is looked for by its id."""

_DEFAULTS: Final = SweepOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Some letters of a dead-letter queue. SQS does not promise which, or that they are all."""

    letters: list[Letter]
    """Those that match the filters, the newest first."""
    looked_at: int
    about: int | None
    """About how many letters there are; None if these credentials may not ask."""
    still_hidden: int
    """Letters that could not be made visible again."""


class DeadLetters:
    """The letters of one dead-letter queue."""

    def __init__(self, queue: Queue, sources: tuple[str, ...]) -> None:
        self.queue = queue
        self.sources = sources
        """The own names of the queues whose redrive policy names this one."""

    @classmethod
    def open(cls, name: str) -> DeadLetters:
        """The dead-letter queue ``name``: an alias, or the own name of an alias's one.

        Raises UnknownQueue, also for a queue that is not known to be a dead-letter queue, because
        a look at another queue would bring its messages nearer to their dead-letter queue. Raises
        SendError.
        """
        known = queue_statuses()
        queue = find_queue(name, known)
        return cls(queue, source_names(queue, known))

    def about(self) -> int | None:
        """About how many letters there are. None if these credentials may not ask."""
        try:
            return administration.get_attributes(self.queue).total
        except SendError:
            return None

    def sample(
        self, filters: Filters | None = None, *,
        limit: int = SAMPLE_SIZE, hide: int = HIDE_SECONDS,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> Sample:  # fmt: skip
        """Look at up to ``limit`` letters; each is visible again when this returns.

        ``is_stopping`` is asked before each receive. Raises SendError.
        """
        filters = filters or Filters()
        letters: list[Letter] = []
        looked_at, about = 0, self.about()
        with Look(self.queue, hide=hide) as look:
            while looked_at < limit and not (look.is_over or is_stopping()):
                received = look.receive(min(limit - looked_at, MAX_BATCH_ENTRIES))
                looked_at += len(received)
                letters += [
                    each for each in map(self._read_received, received) if filters.match(each)
                ]
                if filters.ids and letters:
                    break
        letters.sort(key=lambda each: -each.at)
        return Sample(
            letters=letters, looked_at=looked_at, about=about, still_hidden=look.still_hidden
        )

    def find(
        self, letter_id: str, *,
        limit: int = FIND_SIZE, hide: int = HIDE_SECONDS,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> Letter | None:  # fmt: skip
        """Return the letter with a task id or an id of SQS, if it is among the first ``limit``."""
        filters = Filters(ids=frozenset({letter_id}))
        found = self.sample(filters, limit=limit, hide=hide, is_stopping=is_stopping)
        return found.letters[0] if found.letters else None

    def redrive(
        self, filters: Filters | None = None, options: SweepOptions = _DEFAULTS, *,
        to: str | None = None, reset_attempts: bool = False,
    ) -> Steps:  # fmt: skip
        """Send letters back to their queues; yields the report after each step.

        Each letter is sent first and deleted then. To end the run, close the iterator: what is
        begun is finished, and every letter that was only looked at is visible again. Where nothing
        is filtered SQS moves the letters itself if it can. Raises UnknownQueue and SendError before
        the first step.
        """
        filters = filters or Filters()
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

    def discard(self, filters: Filters | None = None, options: SweepOptions = _DEFAULTS) -> Steps:
        """Delete letters; yields the report after each step. It cannot be undone."""
        report = SweepReport(about=self.about())
        yield from self._run_steps(filters or Filters(), options, lambda letter: None, report)

    def purge(self) -> None:
        """Have SQS delete every letter, at most once a minute. It cannot be undone.

        Raises SendError.
        """
        administration.purge(self.queue)

    def _run_steps(
        self, filters: Filters, options: SweepOptions, prepare: Callable[[Letter], None],
        report: SweepReport,
    ) -> Steps:  # fmt: skip
        run = Sweep(
            self.queue, filters, options, read=self._read_received, prepare=prepare, report=report
        )
        yield from run.steps()

    def _read_received(self, received: Received) -> Letter:
        return read_letter(received, get_config(), sources=self.sources)

    def _movable_arn(self) -> str | None:
        """The ARN, if SQS can move every letter: none was sent by this package.

        SQS does not know where a letter came from that it did not move itself.
        """
        if not self.sources or self._is_written_to():
            return None
        try:
            if any(each.is_from_package for each in self.sample(limit=MAX_BATCH_ENTRIES).letters):
                return None
            return administration.get_attributes(self.queue).arn or None
        except BeanstalkDispatchError:
            return None

    def _is_written_to(self) -> bool:
        """Whether this package sends letters here, as far as this process knows."""
        name = get_config().dead_letter_queue
        return name is not None and self.queue.name in {name, own_name(name)}
