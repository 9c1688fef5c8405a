"""Config: the resolved configuration of this process, read once and checked for contradictions."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from django.apps import apps
from django.core.signals import setting_changed
from django.dispatch import receiver

from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import joined
from beanstalk_dispatch.process import state

from .environment import Values, default_region, read_values
from .policies import policy_of
from .registry import registered_groups, values_of
from .variables import (
    BACKLOG_TOKEN,
    CELERY_QUEUES,
    CORE,
    DEAD_LETTER_QUEUE,
    LEASE_CACHE,
    MAX_AGE,
    MESSAGE_FORMAT,
    POLICIES,
    QUEUES,
    SETTINGS,
    SIGNING_KEYS,
    SQS_KEY,
    SQS_SECRET,
    SQS_TOKEN,
)

if TYPE_CHECKING:
    from .casts import Network
    from .queue_address import QueueAddress

logger = logging.getLogger("beanstalk_dispatch")

_APP: Final = "beanstalk_dispatch"


class Config:
    """The resolved configuration; the Setting of the same name documents each field.

    It is compared and hashed by identity. Its repr shows no secret. It is not a dataclass: a start
    of any project would take two milliseconds longer.
    """

    worker: bool
    table: Mapping[str, str]
    queues: Mapping[str, QueueAddress]
    sqs_key: str | None
    sqs_secret: str | None
    sqs_token: str | None
    sqs_region: str | None
    sqs_endpoint_url: str | None
    create_queues: bool
    message_format: str
    task_timeout: timedelta
    safe_task: str
    observers: tuple[str, ...]
    on_failure: str
    execute_synchronously: bool
    on_commit: bool
    outbox: str
    outbox_databases: tuple[str, ...]
    signing_keys: tuple[str, ...]
    max_age: timedelta | None
    periodic_tasks: tuple[str, ...]
    lease_cache: str | None
    dead_letter_queue: str | None
    max_receives: int | None
    send_timeout: timedelta
    warm: bool
    drain_file: str | None
    crash_ledger: str | None
    isolation: str
    policies: Mapping[str, Any]
    child_memory: int | None
    child_tasks: int | None
    trusted_peers: tuple[Network, ...] | None
    tasks: tuple[str, ...]
    celery_queues: tuple[str, ...]
    results: str | None
    embedded_metrics: str | None
    result_ttl: timedelta
    result_arguments: bool
    backlog_token: str | None
    backlog_per_thread: int
    sources: Mapping[str, str]
    """The source of each field's value by the field's name, in the words of ``Values.sources``."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name}: the configuration of a process does not change")

    @property
    def is_set(self) -> bool:
        """Return True if any variable is set: without one there is no task, no queue, no worker."""
        return any(source != "default" for source in self.sources.values())

    @property
    def region(self) -> str | None:
        """Return the region of a queue that is given by its name. None: boto3 may know one."""
        return self.sqs_region or default_region()

    @property
    def waits_for_commits(self) -> bool:
        """Return True if calls wait for the commit of a transaction, unless they say otherwise."""
        return self.on_commit or self.outbox == "always"

    @property
    def may_wait_for_commits(self) -> bool:
        """Return True if calls of some task may wait for a commit without saying so."""
        return self.waits_for_commits or self.has_policy("on_commit")

    def policy(self, name: str) -> dict[str, Any]:
        """Return the options that BEANSTALK_DISPATCH_POLICIES sets of the task with this name."""
        if not self.policies:
            return {}
        return policy_of(self.policies, name=name, path=self.table.get(name, name))

    def has_policy(self, option: str) -> bool:
        """Return True if BEANSTALK_DISPATCH_POLICIES sets this option of any task."""
        return bool(self.policies) and any(each.endswith(f".{option}") for each in self.policies)

    @property
    def uses_outbox(self) -> bool:
        """Return True if a database stores messages: all of them, or those that cannot be sent."""
        return self.outbox != "off"

    @property
    def sends_base64(self) -> bool:
        """Return True if messages have the format of beanstalk-dispatch 0.1, without an id."""
        return self.message_format == "base64"

    @property
    def work_queues(self) -> list[str]:
        """Return the aliases of the queues that consumers read: all but the dead-letter queue's."""
        return [alias for alias in self.queues if alias != self.dead_letter_queue]

    def is_dead_letter_queue(self, name: str) -> bool:
        """Return True if ``name`` is the alias or the own name of the dead-letter queue."""
        alias = self.dead_letter_queue
        if alias is None:
            return False
        from .queue_address import QueueAddress  # noqa: PLC0415 - few processes need it

        address = self.queues.get(alias) or QueueAddress.parse(alias)
        return name in {alias, address.name}

    def alias_of(self, queue_name: str) -> str | None:
        """Return the alias of the queue with this own name."""
        return next((key for key, each in self.queues.items() if each.name == queue_name), None)

    def location_of(self, queue_name: str) -> str | None:
        """Return the region and account of a queue, or None if they are not known.

        Return None, too, if two addresses in ``queues`` with this name differ in them.
        """
        return _locations(self).get(queue_name)

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name, setting in SETTINGS.items()
            if not setting.secret
        )
        return f"Config({', '.join(shown)})"


# Threads may read the configuration at the same moment. All of them use the one that is stored here
# first, because clients and queues belong to one Config object.
_first_config: Final[dict[str, Config]] = {}


@functools.lru_cache(maxsize=1)
def _locations(config: Config) -> dict[str, str]:
    found: dict[str, set[str | None]] = {}
    for each in config.queues.values():
        found.setdefault(each.name, set()).add(each.location)
    known = {name: next(iter(places)) for name, places in found.items() if len(places) == 1}
    return {name: place for name, place in known.items() if place is not None}


@functools.cache
def get_config() -> Config:
    """Return the process's configuration, read once.

    Raise a ConfigurationError with every problem if there is one. A Django setting wins over the
    environment (``NAME``, or the file that ``NAME_FILE`` names), which wins over the default. An
    empty value counts as not set.
    """
    values = read_values(CORE)
    config = _make_config(values)
    problems = [*values.problems, *_find_contradictions(config)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigurationError(f"{count} in the configuration of beanstalk_dispatch:{lines}")
    _log_if_not_installed()
    return _first_config.setdefault("config", config)


def _make_config(values: Values) -> Config:
    fields: dict[str, Any] = {name: values[setting] for name, setting in SETTINGS.items()}
    sources = {name: values.sources[setting.variable] for name, setting in SETTINGS.items()}
    return Config(**fields, sources=MappingProxyType(sources))


def _find_contradictions(config: Config) -> Iterable[str]:
    key, secret = SQS_KEY.variable, SQS_SECRET.variable
    if config.sqs_key and not config.sqs_secret:
        yield f"{key} is set without {secret}; set both, or neither for the instance profile"
    if config.sqs_secret and not config.sqs_key:
        yield f"{secret} is set without {key}; set both, or neither for the instance profile"
    if config.sqs_token and not (config.sqs_key and config.sqs_secret):
        yield f"{SQS_TOKEN.variable} is set without {key} and {secret}"
    yield from _problems_of_the_dead_letter_queue(config)
    if config.max_age and not config.signing_keys:
        yield (
            f"{MAX_AGE.variable} is set without {SIGNING_KEYS.variable}; without a signature a "
            "sender may write any time"
        )
    yield from _problems_of_the_celery_queues(config)
    for option in ("limit", "unique_by"):
        if config.lease_cache is None and config.has_policy(option):
            yield (
                f"{POLICIES.variable} has {option} without {LEASE_CACHE.variable}; set that cache, "
                "which all machines share"
            )
    if config.backlog_token in config.signing_keys:
        yield (
            f"{BACKLOG_TOKEN.variable} is also in {SIGNING_KEYS.variable}; a client that reads the "
            "backlog could then sign messages"
        )
    if config.signing_keys and config.sends_base64:
        yield (
            f"{MESSAGE_FORMAT.variable}: base64 messages cannot be signed, but "
            f"{SIGNING_KEYS.variable} is set; write json, or unset the keys"
        )


def _problems_of_the_dead_letter_queue(config: Config) -> Iterable[str]:
    name, variable = config.dead_letter_queue, DEAD_LETTER_QUEUE.variable
    if name is None:
        return
    if not config.queues:
        from .queue_address import QueueAddress  # noqa: PLC0415 - few processes need it

        try:
            QueueAddress.parse(name)
        except ValueError as exc:
            yield f"{variable}: {exc}"
    elif name not in config.queues:
        yield _unknown_alias(variable, name, config)
    for alias in config.work_queues:
        if name in config.queues and config.queues[alias].is_same_queue(config.queues[name]):
            yield (
                f"{variable}: {name!r} is the queue {config.queues[name].name!r}, and so is the "
                f"alias {alias!r}: a message that fails would go back to its own queue; give "
                f"{name!r} another queue"
            )


def _problems_of_the_celery_queues(config: Config) -> Iterable[str]:
    variable = CELERY_QUEUES.variable
    for name in config.celery_queues:
        if config.queues and name not in config.queues:
            yield _unknown_alias(variable, name, config)
    if config.celery_queues and config.max_age:
        yield (
            f"{variable} and {MAX_AGE.variable} are set; messages of Celery do not say when they "
            "were sent, so all of them would be refused"
        )


def _unknown_alias(variable: str, name: str, config: Config) -> str:
    return f"{variable}: {name!r} is not in {QUEUES.variable}; known: {joined(config.queues)}"


def contradictions() -> list[str]:
    """Return a line for each pair of valid variables that contradict each other."""
    return list(_find_contradictions(_make_config(values_of(CORE))))


def _log_if_not_installed() -> None:
    if apps.ready and not apps.is_installed(_APP):
        logger.warning(
            "not in INSTALLED_APPS app=%s: no check, no command and no start line says what is "
            "wrong; add it",
            _APP,
        )


def clear_caches() -> None:
    """Forget each group, so that it is read again. For tests that change ``os.environ``."""
    _first_config.clear()
    get_config.cache_clear()
    values_of.cache_clear()


state.declare(clear_caches, in_child=False)


@receiver(setting_changed)
def _on_setting_changed(*, setting: str, **_: object) -> None:
    if setting.startswith(tuple(group.prefix for group in registered_groups())):
        clear_caches()
