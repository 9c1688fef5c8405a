"""The plan of a deployment: two environments, their queues, and the timeouts between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from django.apps import apps

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import ARN, QueueAddress, dead_letter_name, is_fifo
from beanstalk_dispatch.conf.variables import DEAD_LETTER_QUEUE, QUEUES
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import joined

from .application import Application
from .dispatcher_path import PATH, dispatcher_path
from .existing import Existing, find_existing
from .ladder import Ladder
from .listed_tasks import listed_tasks, longest_time_limit

WORKBENCH_APP: Final = "beanstalk_dispatch.contrib.workbench"
_PARTITIONS: Final = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc"}
"""The partition for each start of a region's name outside of the commercial regions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedQueue:
    """A queue by its URL, whatever the configuration says of it."""

    alias: str
    name: str
    region: str
    account: str

    @property
    def url(self) -> str:
        """The queue's URL, which needs no look-up."""
        return str(QueueAddress.parse(self.arn).url)

    @property
    def arn(self) -> str:
        """The queue's ARN, for policies."""
        return f"arn:{self.partition}:sqs:{self.region}:{self.account}:{self.name}"

    @property
    def partition(self) -> str:
        """The part of AWS that its region belongs to.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
        """
        return next((p for start, p in _PARTITIONS.items() if self.region.startswith(start)), "aws")

    @property
    def is_fifo(self) -> bool:
        """True if the queue is a FIFO queue."""
        return is_fifo(self.name)

    @property
    def dead_letters(self) -> PlannedQueue:
        """The queue to which SQS moves a message that was received too often."""
        return replace(self, name=dead_letter_name(self.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that the deployment files and the commands are made from."""

    name: str
    """The name of the application."""
    web: str
    """The name of the web environment, and of its role and instance profile."""
    worker: str
    """The same of the worker environment."""
    queues: Sequence[PlannedQueue]
    """The queues of the configuration that have tasks."""
    read_queue: PlannedQueue
    """The one that the worker environment reads: each environment reads one."""
    http_path: str
    application: Application
    """The application that a web server loads, and its kind."""
    processes: int
    threads: int
    ladder: Ladder
    schedules: Mapping[str, str]
    """Name of a task → its schedule in cron.yaml, of the tasks that this environment runs."""
    periodic_elsewhere: Sequence[str] = ()
    """The names of those that another environment runs."""
    existing: Existing = field(default_factory=Existing)
    """The other environments of the bundle, whose worker environments read other queues."""
    is_shared: bool = True
    """True if both environments get the same bundle."""
    dead_letter_queue: PlannedQueue | None = None
    """The alias to which the package itself sends dead letters. No worker reads it."""
    max_instances: int | None = None
    """The number of instances that the worker environment may have if its queue is long.

    None: the environment does not scale by its queue.
    """
    per_thread: int = 1
    """The number of messages for each thread at which another instance is added."""
    shows_backlog: bool = False
    """True if both tiers may ask for the depth of the queues."""
    shows_dead_letters: bool = False
    """True if the web tier has the admin's pages of dead letters."""
    alarm_topic: str | None = None
    """The ARN of the topic that alarms go to, or an e-mail address to make one for."""

    @property
    def connections(self) -> int:
        """HttpConnections: as many requests as can run at the same time, at most 100."""
        return min(self.processes * self.threads, 100)

    @property
    def is_first(self) -> bool:
        """True if the bundle has no other worker environment, so that everything is new."""
        return not self.existing.workers

    @property
    def new_queues(self) -> Sequence[PlannedQueue]:
        """The queues that have tasks and that no environment of the bundle uses yet."""
        known = frozenset() if self.is_first else self.existing.queue_arns
        return [queue for queue in self.queues if queue.arn not in known]

    @property
    def dead_letter_queues(self) -> Mapping[str, PlannedQueue]:
        """The dead-letter queues by their ARN, because two queues may have the same one."""
        every = [queue.dead_letters for queue in self.queues]
        if self.dead_letter_queue:
            every.append(self.dead_letter_queue)
        return {each.arn: each for each in every}

    @property
    def configured_queues(self) -> Sequence[PlannedQueue]:
        """Every queue of the configuration: those that have tasks, and the dead-letter queue."""
        return [*self.queues, *filter(None, [self.dead_letter_queue])]

    @property
    def queue_variables(self) -> Mapping[str, str]:
        """The variables that name the queues, each by its URL, which nobody has to look up."""
        targets = " ".join(f"{each.alias}={each.url}" for each in self.configured_queues)
        variables = {QUEUES.variable: targets}
        if self.dead_letter_queue:
            variables[DEAD_LETTER_QUEUE.variable] = self.dead_letter_queue.alias
        return variables

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each queue and each schedule that the plan leaves out."""
        if self.read_queue.is_fifo and self.periodic_elsewhere:
            yield (
                f"the worker environment reads the FIFO queue {self.read_queue.alias!r}, so the "
                "daemon runs no periodic task; give the periodic tasks a standard queue"
            )
        for queue in self.queues:
            if queue != self.read_queue and queue.url not in self.existing.workers.values():
                yield (
                    f"the worker environment does not read {queue.alias!r}: give that queue an "
                    f"environment of its own, with --queue {queue.alias} --worker "
                    f"{self.worker}-{queue.alias}, or run beanstalk_worker {queue.alias}"
                )


def make_plan(
    config: Config,
    *,
    name: str,
    application: Application | None = None,
    web: str | None = None,
    worker: str | None = None,
    region: str | None = None,
    account: str | None = None,
    queue: str | None = None,
    processes: int = 1,
    threads: int = 15,
    is_shared: bool = True,
    max_instances: int | None = None,
    root: Path | None = None,
    alarm_topic: str | None = None,
) -> Plan:
    """Return the plan for this configuration. Raise ConfigurationError if a value is missing.

    ``name`` is the project's; the environments' names are made from it. ``root`` is the folder of
    the bundle, whose files name the environments that exist.
    """
    region = region or config.region
    queues, read, dead = _plan_queues(config, name=name, region=region, account=account, read=queue)
    web, worker = web or f"{name}-web", worker or f"{name}-worker"
    existing = find_existing(root, web) if root else Existing()
    others = {key: url for key, url in existing.workers.items() if url != read.url}
    schedules = {task.name: task.schedule for task in listed_tasks(config) if task.schedule}
    owns_schedules = existing.cron_owner in (None, worker) and not read.is_fifo
    return Plan(
        name=name,
        web=web,
        worker=worker,
        queues=queues,
        read_queue=read,
        http_path=dispatcher_path() or PATH,
        application=application or Application(),
        processes=processes,
        threads=threads,
        ladder=Ladder.for_time_limit(longest_time_limit(config)),
        schedules=schedules if owns_schedules else {},
        periodic_elsewhere=() if owns_schedules else tuple(schedules),
        existing=replace(existing, workers=others),
        is_shared=is_shared,
        dead_letter_queue=dead,
        max_instances=max_instances,
        per_thread=config.backlog_per_thread,
        shows_backlog=config.backlog_token is not None,
        shows_dead_letters=apps.is_installed(WORKBENCH_APP),
        alarm_topic=alarm_topic,
    )


def _plan_queues(
    config: Config, *, name: str, region: str | None, account: str | None, read: str | None
) -> tuple[list[PlannedQueue], PlannedQueue, PlannedQueue | None]:
    """Return the queues that have tasks, the one of them that is read, and the dead-letter queue.

    ``read`` is the alias of the second; without it the first of them is read.
    """
    addresses, dead_letters = _addresses(config, work=read or "work", work_name=f"{name}-work")
    planned = {key: _plan_queue(key, each, region, account) for key, each in addresses.items()}
    dead = planned.pop(dead_letters or "", None)
    if not planned:
        raise ConfigurationError(f"{QUEUES.variable} has no queue besides the dead-letter queue")
    read = read or next(iter(planned))
    if read not in planned:
        raise ConfigurationError(f"there is no queue {read!r}; known: {joined(planned)}")
    return list(planned.values()), planned[read], dead


def _addresses(
    config: Config, *, work: str, work_name: str
) -> tuple[Mapping[str, QueueAddress], str | None]:
    """Return the queues by their aliases, and the alias of the dead-letter queue.

    Without aliases there is one queue for tasks, and the dead-letter queue goes by its own name.
    """
    dead_letters = config.dead_letter_queue
    if config.queues:
        return config.queues, dead_letters
    addresses = {work: QueueAddress(name=work_name)}
    if dead_letters is None:
        return addresses, None
    address = QueueAddress.parse(dead_letters)
    return addresses | {address.name: address}, address.name


def _plan_queue(
    alias: str, address: QueueAddress, region: str | None, account: str | None
) -> PlannedQueue:
    own_region = address.region or region
    own_account = (address.location or "").rpartition("/")[2] or account
    if own_region is None:
        raise ConfigurationError(f"the region of the queue {alias!r} is not known; add --region")
    if own_account is None:
        raise ConfigurationError(
            f"the AWS account of the queue {alias!r} is not known; add --account, with the number "
            "that 'aws sts get-caller-identity --query Account --output text' prints"
        )
    queue = PlannedQueue(alias=alias, name=address.name, region=own_region, account=own_account)
    if re.fullmatch(ARN, queue.arn) is None:
        raise ConfigurationError(
            f"{queue.arn!r} is not the ARN of a queue; write a region like eu-west-1, and an "
            "account of 12 digits"
        )
    return queue
