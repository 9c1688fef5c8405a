"""The queues that are known: the messages in each, and which of them are dead-letter queues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.queue_address import is_fifo
from beanstalk_dispatch.conf.variables import DEAD_LETTER_QUEUE, QUEUES
from beanstalk_dispatch.exceptions import (
    BeanstalkDispatchError,
    ConfigurationError,
    LeaseUnavailable,
    UnknownQueue,
)
from beanstalk_dispatch.logging.log_lines import duration, escaped, joined
from beanstalk_dispatch.messages import record
from beanstalk_dispatch.sqs.administration import (
    QueueAttributes,
    get_attributes,
    source_queue_names,
)
from beanstalk_dispatch.sqs.errors import missing_permission
from beanstalk_dispatch.sqs.opening import open_beside, open_queue
from beanstalk_dispatch.sqs.queue import Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """One queue, as far as it can be seen with these credentials."""

    name: str
    """The own name of the queue; the alias if the queue could not be opened."""
    alias: str = ""
    queue: Queue | None = None
    """The opened queue; None if it could not be opened."""
    attributes: QueueAttributes | None = None
    """The attributes of the queue; None if SQS did not say, with the reason in ``problem``."""
    sources: tuple[str, ...] = ()
    """The own names of the queues that it is the dead-letter queue of."""
    is_dead_letter_queue: bool = False
    paused_since: float | None = None
    """The time at which the queue was paused, in Unix seconds; None if it is not paused."""
    pause_problem: str = ""
    """The reason why it is not known whether the queue is paused."""
    problem: str = ""
    """The facts that cannot be shown, and the permission that is missing."""

    @property
    def has_letters(self) -> bool:
        """True if the queue is a dead-letter queue, and SQS says that it is not empty."""
        return bool(self.is_dead_letter_queue and self.attributes and self.attributes.total)

    def cells(self) -> list[str]:
        """Return the cells of its row below COLUMNS."""
        is_renamed = self.alias not in {"", self.name}
        name = f"{self.alias} ({self.name})" if is_renamed else self.name
        found = self.attributes
        if found is None:
            return [name, *"??????"]
        if found.dead_letter_queue:
            target = f"{found.dead_letter_queue} after {found.max_receives} receives"
        elif self.is_dead_letter_queue:
            target = f"is that of {', '.join(self.sources) or DEAD_LETTER_QUEUE.variable}"
        else:
            target = "none"
        figures = map(str, (found.visible, found.in_flight, found.delayed))
        times = map(duration, (found.visibility_timeout, found.retention))
        return [name, *figures, *times, target]

    @property
    def is_pausable(self) -> bool:
        """True if a pause of the queue, or its end, may be offered.

        No consumer reads a dead-letter queue.
        """
        if self.is_dead_letter_queue and self.paused_since is None:
            return False
        return self.queue is not None


COLUMNS: Final = (
    "Queue", "Visible", "In flight", "Delayed", "Hides", "Keeps", "Dead-letter queue",
)  # fmt: skip


def queue_statuses(names: Sequence[str] = ()) -> list[QueueStatus]:
    """Return the status of ``names``, or of all aliases, and of their dead-letter queues.

    Ask for the attributes of each queue once. A request that fails is a ``problem`` of the status.
    """
    config = get_config()
    found = [_read_status(name, config) for name in names or _known_names(config)]
    seen = {each.queue.url for each in found if each.queue}
    for each in list(found):
        target = _dead_letter_queue_of(each)
        if target and target.url not in seen:
            seen.add(target.url)
            found.append(_status_of(target))
    return _with_pauses(list(_with_sources(found, config)), config)


def own_name(name: str) -> str:
    """Return the own name of an alias's queue. A name that is not an alias is returned as it is."""
    address = get_config().queues.get(name)
    return address.name if address else name


def pause(name: str) -> str:
    """Pause a queue, and return its own name.

    Raise ConfigurationError if no lease is configured, and LeaseUnavailable if its cache does not
    keep the pause. See find_queue() for other errors.
    """
    queue_name = find_queue(name).name
    record.pause(queue_name)
    return queue_name


def resume(name: str) -> str:
    """Resume a queue, and return its own name. See pause() for errors."""
    queue_name = find_queue(name).name
    record.resume(queue_name)
    return queue_name


def pause_limit(queue_name: str) -> str:
    """Return which consumers a pause does not reach, in words; empty if it reaches all."""
    if not is_fifo(queue_name):
        return ""
    return (
        f"A message of the FIFO queue {queue_name} cannot wait as a delayed copy: only "
        "beanstalk_worker pauses it, and the endpoint of Elastic Beanstalk and Lambda run its tasks"
    )


def _with_pauses(found: list[QueueStatus], config: Config) -> list[QueueStatus]:
    try:
        since = record.paused_since([each.name for each in found], config)
    except (ConfigurationError, LeaseUnavailable) as exc:
        return [replace(each, pause_problem=str(exc)) for each in found]
    return [replace(each, paused_since=since.get(each.name)) for each in found]


def find_queue(name: str, known: Sequence[QueueStatus] | None = None) -> Queue:
    """Open the queue of an alias, or the dead-letter queue of an alias by its own name.

    Without aliases, the name may be any name, URL or ARN. ``known`` is the answer of
    ``queue_statuses``, if the caller has it. Raise UnknownQueue if there is no such queue, or
    SendError if SQS cannot be asked.
    """
    config = get_config()
    try:
        return open_queue(name)
    except UnknownQueue:
        if name in config.queues or not config.queues:
            raise
    statuses = queue_statuses() if known is None else known
    others = {each.name: each for each in statuses if each.is_dead_letter_queue}
    if name in others and (queue := others[name].queue):
        return queue
    raise UnknownQueue(
        f"{name!r} is neither in {QUEUES.variable} nor a dead-letter queue of one in "
        f"it; known: {joined([*config.queues, *others])}"
    )


def source_names(queue: Queue, known: Sequence[QueueStatus]) -> tuple[str, ...]:
    """Return the queues that ``queue`` is the dead-letter queue of, as SQS and the aliases say.

    ``known`` is the answer of ``queue_statuses``. Raise UnknownQueue if ``queue`` is not a
    dead-letter queue, or if that cannot be found out: receiving from it would raise the receive
    count of its messages, until SQS moves them to its dead-letter queue.
    """
    status = next((each for each in known if each.name == queue.name), None)
    _refuse_source(queue, status)
    names, reason = set(status.sources if status else ()), ""
    try:
        names.update(source_queue_names(queue))
    except BeanstalkDispatchError as exc:
        reason = f" ({problem_of(exc)})"
    if names or (status and status.is_dead_letter_queue):
        return tuple(sorted(names))
    raise UnknownQueue(
        f"{queue.name} is not known to be a dead-letter queue: no redrive policy names it{reason}, "
        f"and it is not in {DEAD_LETTER_QUEUE.variable}"
    )


def problem_of(exc: BeanstalkDispatchError) -> str:
    """Return the error as one line, which names the permission that is missing."""
    permission = missing_permission(exc)
    problem = escaped(str(exc))
    return f"{problem}; the permission {permission} is missing" if permission else problem


def _refuse_source(queue: Queue, status: QueueStatus | None) -> None:
    """Raise UnknownQueue for a queue that has a dead-letter queue."""
    attributes = status.attributes if status and status.queue is queue else None
    try:
        target = (attributes or get_attributes(queue)).dead_letter_queue
    except BeanstalkDispatchError:  # then something else must say that it is a dead-letter queue
        return
    if target:
        advice = f"its dead-letter queue is {target}"
        if status and status.is_dead_letter_queue:
            advice = (
                f"{DEAD_LETTER_QUEUE.variable} names it, so remove that policy: aws sqs "
                f"set-queue-attributes --queue-url {queue.url} "
                '--attributes \'{"RedrivePolicy": ""}\''
            )
        raise UnknownQueue(
            f"{queue.name} is not looked at, because its redrive policy counts each look as a "
            f"receive; {advice}"
        )


def _known_names(config: Config) -> list[str]:
    """Return the aliases; without any, the one dead-letter queue that is configured."""
    dead = config.dead_letter_queue
    return list(config.queues) or ([dead] if dead else [])


def _read_status(name: str, config: Config) -> QueueStatus:
    alias = name if name in config.queues else ""
    try:
        queue = find_queue(name)
    except BeanstalkDispatchError as exc:
        return QueueStatus(name=name, alias=alias, problem=problem_of(exc))
    return _status_of(queue, alias)


def _status_of(queue: Queue, alias: str = "") -> QueueStatus:
    status = QueueStatus(name=queue.name, alias=alias, queue=queue)
    try:
        return replace(status, attributes=get_attributes(queue))
    except BeanstalkDispatchError as exc:
        return replace(status, problem=problem_of(exc))


def _dead_letter_queue_of(status: QueueStatus) -> Queue | None:
    if status.queue and status.attributes and status.attributes.dead_letter_queue:
        return open_beside(status.queue, status.attributes.dead_letter_queue)
    return None


def _with_sources(found: Sequence[QueueStatus], config: Config) -> Iterator[QueueStatus]:
    targets: dict[str, set[str]] = {}
    for each in found:
        if target := _dead_letter_queue_of(each):
            targets.setdefault(target.name, set()).add(each.name)
    for each in found:
        sources = tuple(sorted(targets.get(each.name, ())))
        is_configured = config.is_dead_letter_queue(each.alias or each.name)
        yield replace(each, sources=sources, is_dead_letter_queue=bool(sources) or is_configured)
