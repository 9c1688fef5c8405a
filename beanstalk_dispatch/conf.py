"""The one registry of settings, and the only reader of the environment and of Django settings.

Each variable is declared once, as a Setting. The tables in docs/, ``.env.example`` and the checks
are made from it. A contrib room registers a SettingsGroup of its own, which is read by itself: a
wrong value in one group never breaks another.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import SequenceMatcher, get_close_matches
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import environ
from django.apps import apps
from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from environ.fileaware_mapping import FileAwareMapping

from . import casts
from .casts import InvalidValue, Network
from .exceptions import ConfigurationError, listed
from .queue_address import QueueAddress

logger = logging.getLogger("beanstalk_dispatch")

PREFIX: Final = "BEANSTALK_"
_APP: Final = "beanstalk_dispatch"

T = TypeVar("T")


# --- the registry ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting(Generic[T]):
    """One variable: all that the package, its checks and its documentation know of it."""

    variable: str
    """The name of the environment variable, and of the Django setting."""
    form: str
    """What is accepted, in the words of the documentation."""
    cast: Callable[[object], T]
    """Takes a string, or the Python value of a Django setting. Raises ValueError."""
    default: T
    """The value where the variable is not set."""
    default_text: str
    """The default, in the words of the documentation."""
    meaning: str
    """What the variable does, in one or two sentences."""
    example: str
    """A value for ``.env.example``."""
    cast_file: Callable[[str], T] | None = None
    """Takes the content of a file, where that is not written like a variable."""
    secret: bool = False
    """The value is never shown: not in a repr, a log line or an error."""
    room: str | None = None
    """The contrib room that gives the variable its effect. It is imported at start if the variable
    is set, and not otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SettingsGroup:
    """The settings of one room."""

    prefix: str
    """What the name of each variable starts with."""
    settings: tuple[Setting[Any], ...]
    """In the order of the documentation."""
    is_prefix_shared: bool = False
    """Other software reads variables with this prefix too. An unknown name is then reported only if
    it differs from a known one by a letter or two."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """What a group's settings are. ``values[SETTING]`` has the type that the Setting declares."""

    sources: Mapping[str, str]
    """Variable → where its value came from: ``settings``, ``environment``, ``file`` or
    ``default``."""
    problems: tuple[str, ...]
    """A line for each variable whose value is not valid. Such a variable has its default."""
    _values: Mapping[Setting[Any], Any] = field(repr=False)

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self._values[setting]
        return value


def register(group: SettingsGroup) -> None:
    """Make the settings of a contrib room known: to checks, to the log and to "did you mean".

    The room calls it when it is imported, and reads its values with ``values_of``.
    """
    known = {setting.variable for each in _groups for setting in each.settings}
    if repeated := known & {setting.variable for setting in group.settings}:
        raise ValueError(f"registered twice: {listed(sorted(repeated))}")
    _groups.append(group)


def registered_groups() -> tuple[SettingsGroup, ...]:
    """The package's own group, then those of the contrib rooms that are imported."""
    return tuple(_groups)


@functools.cache
def values_of(group: SettingsGroup) -> Values:
    """The values of a contrib room's settings, read once. Problems are in the result."""
    return _resolve_group(group)


def clear_caches() -> None:
    """Read every group again when it is next used. For tests that change ``os.environ``."""
    _first_config.clear()
    get_config.cache_clear()
    values_of.cache_clear()


@receiver(setting_changed)
def _on_setting_changed(*, setting: str, **_: object) -> None:
    if setting.startswith(tuple(group.prefix for group in _groups)):
        clear_caches()


# --- the variables ---------------------------------------------------------------------------

_NO_PAIRS: Final[Mapping[str, Any]] = MappingProxyType({})

WORKER: Final[Setting[bool]] = Setting(
    variable="BEANSTALK_WORKER",
    form="bool",
    cast=casts.boolean,
    default=False,
    default_text="False",
    meaning="This machine is a worker. On other machines the endpoint answers 404 and no task "
    "runs.",
    example="True",
)
TABLE: Final[Setting[Mapping[str, str]]] = Setting(
    variable="BEANSTALK_DISPATCH_TABLE",
    form="pairs `name=package.module.attribute`",
    cast=casts.table,
    default=_NO_PAIRS,
    default_text="empty",
    meaning="The functions that may run. No other function runs.",
    example="send_welcome=shop.tasks.send_welcome build_report=shop.tasks.BuildReport",
)
QUEUES: Final[Setting[Mapping[str, QueueAddress]]] = Setting(
    variable="BEANSTALK_DISPATCH_QUEUES",
    form="pairs `alias=queue` (name, URL or ARN)",
    cast=casts.queues,
    default=_NO_PAIRS,
    default_text="empty",
    meaning="Aliases of queues. If any are set, another name is an error. If none are set, names "
    "are used as they are.",
    example="mail=shop-mail work=shop-work",
)
SQS_KEY: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_KEY",
    form="string without whitespace",
    cast=casts.credential,
    default=None,
    default_text="boto3's own credentials",
    meaning="AWS access key ID. Leave it unset to use the instance profile.",
    example="the-access-key-id",
    secret=True,
)
SQS_SECRET: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_SECRET",
    form="string without whitespace",
    cast=casts.credential,
    default=None,
    default_text="boto3's own credentials",
    meaning="AWS secret access key. Set it together with the key.",
    example="the-secret-access-key",
    secret=True,
)
SQS_TOKEN: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_TOKEN",
    form="string without whitespace",
    cast=casts.credential,
    default=None,
    default_text="none",
    meaning="AWS session token of temporary credentials. Set it together with the key and the "
    "secret.",
    example="the-session-token",
    secret=True,
)
SQS_REGION: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_REGION",
    form="AWS region",
    cast=casts.region,
    default=None,
    default_text="AWS_REGION, AWS_DEFAULT_REGION, boto3's own, us-east-1",
    meaning="Region of the queues that are given by name. A URL or an ARN contains its region.",
    example="eu-west-1",
)
SQS_ENDPOINT_URL: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_ENDPOINT_URL",
    form="URL",
    cast=casts.url,
    default=None,
    default_text="none",
    meaning="A VPC endpoint or a local SQS server, to use instead of the public endpoint.",
    example="https://vpce-0123.sqs.eu-west-1.vpce.amazonaws.com",
)
CREATE_QUEUES: Final[Setting[bool]] = Setting(
    variable="BEANSTALK_DISPATCH_CREATE_QUEUES",
    form="bool",
    cast=casts.boolean,
    default=False,
    default_text="False",
    meaning="Create a queue that is missing, with a dead-letter queue beside it. For local use.",
    example="True",
)
MESSAGE_FORMAT: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_MESSAGE_FORMAT",
    form="`json` or `base64`",
    cast=casts.choice("json", "base64"),
    default="json",
    default_text="json",
    meaning="The format of sent messages; both are always accepted. beanstalk-dispatch 0.1 workers "
    "can read base64: use it during a migration.",
    example="json",
)
TASK_TIMEOUT: Final[Setting[timedelta]] = Setting(
    variable="BEANSTALK_DISPATCH_TASK_TIMEOUT",
    form="duration `90`, `90s`, `5m`, `1h`",
    cast=casts.duration,
    default=timedelta(minutes=2),
    default_text="2m",
    meaning="Time limit of a task that does not set its own. At most 12h.",
    example="2m",
)
SAFE_TASK: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_SAFE_TASK",
    form="dotted path",
    cast=casts.dotted_path,
    default="beanstalk_dispatch.safe_task.SafeTask",
    default_text="beanstalk_dispatch.safe_task.SafeTask",
    meaning="The SafeTask class that runs every plain function. Its observers watch every task.",
    example="beanstalk_dispatch.safe_task.SafeTask",
)
ON_FAILURE: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_ON_FAILURE",
    form="`redeliver` or `acknowledge`",
    cast=casts.choice("redeliver", "acknowledge"),
    default="redeliver",
    default_text="redeliver",
    meaning="What the endpoint answers when a task fails. redeliver: 500, so SQS delivers the "
    "message again and finally moves it to the dead-letter queue. acknowledge: 200, as in 0.1, so "
    "the message is deleted.",
    example="redeliver",
)
EXECUTE_SYNCHRONOUSLY: Final[Setting[bool]] = Setting(
    variable="BEANSTALK_DISPATCH_EXECUTE_SYNCHRONOUSLY",
    form="bool",
    cast=casts.boolean,
    default=False,
    default_text="False",
    meaning="Run tasks in the calling process, without SQS. For tests and development.",
    example="True",
)
ON_COMMIT: Final[Setting[bool]] = Setting(
    variable="BEANSTALK_DISPATCH_ON_COMMIT",
    form="bool",
    cast=casts.boolean,
    default=False,
    default_text="False",
    meaning="Send messages after the current database transaction commits.",
    example="True",
)
CHECK_CALLS: Final[Setting[bool]] = Setting(
    variable="BEANSTALK_DISPATCH_CHECK_CALLS",
    form="bool",
    cast=casts.boolean,
    default=True,
    default_text="True",
    meaning="Refuse a call whose arguments do not fit the signature of its task, where the process "
    "has imported the task.",
    example="True",
)
OUTBOX: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_OUTBOX",
    form="`always`, `on-failure` or `off`",
    cast=casts.choice("always", "on-failure", "off"),
    default="off",
    default_text="off",
    meaning="Where messages wait until SQS has taken them. always: in the database, stored in the "
    "caller's transaction. on-failure: the same, but only what could not be sent after its commit. "
    "Needs beanstalk_dispatch.contrib.outbox in INSTALLED_APPS.",
    example="always",
)
OUTBOX_DATABASES: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_OUTBOX_DATABASES",
    form="list of DATABASES aliases",
    cast=casts.strings,
    default=("default",),
    default_text="default",
    meaning="The databases that have an outbox. The relay sends from all of them.",
    example="default",
)
SIGNING_KEYS: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_SIGNING_KEYS",
    form="list",
    cast=casts.signing_keys,
    cast_file=casts.signing_keys_of_file,
    default=(),
    default_text="empty",
    meaning="The first key signs, every key verifies. If any are set, an unsigned or forged "
    f"message is refused. Each has {casts.MIN_KEY_LENGTH} or more characters.",
    example="one-long-random-string",
    secret=True,
)
MAX_AGE: Final[Setting[timedelta | None]] = Setting(
    variable="BEANSTALK_DISPATCH_MAX_AGE",
    form="duration `30m`, `12h`, `4d`",
    cast=casts.age,
    default=None,
    default_text="none",
    meaning="Refuse a signed message that was sent longer ago, or was due longer ago if it has a "
    "delay of more than 15 minutes. More than 15m, and at most 14d.",
    example="4d",
)
PERIODIC_TASKS: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_PERIODIC_TASKS",
    form="list",
    cast=casts.strings,
    default=(),
    default_text="empty",
    meaning="Names from the table that a POST of cron.yaml may run. Such a POST cannot be signed.",
    example="clean_up",
)
LEASE_CACHE: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_LEASE_CACHE",
    form="CACHES alias",
    cast=casts.string,
    default=None,
    default_text="none",
    meaning="Run each message to success only once, with a lease in this cache. All workers must "
    "share the cache.",
    example="leases",
)
DEAD_LETTER_QUEUE: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE",
    form="queue alias",
    cast=casts.string,
    default=None,
    default_text="none",
    meaning="Where a message is sent, with its traceback, when its retries are used up or it can "
    "never run.",
    example="dead",
)
SEND_TIMEOUT: Final[Setting[timedelta]] = Setting(
    variable="BEANSTALK_DISPATCH_SEND_TIMEOUT",
    form="duration `10`, `10s`, `1m`",
    cast=casts.duration,
    default=timedelta(seconds=10),
    default_text="10s",
    meaning="How long one request that sends messages may take in all, its retries included.",
    example="10s",
)
WARM: Final[Setting[bool]] = Setting(
    variable="BEANSTALK_DISPATCH_WARM",
    form="bool",
    cast=casts.boolean,
    default=False,
    default_text="False",
    meaning="Import boto3 and make its clients in a thread when Django starts, so that the first "
    "message is sent as fast as the others.",
    example="True",
)
DRAIN_FILE: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_DRAIN_FILE",
    form="path",
    cast=casts.absolute_path,
    default=None,
    default_text="none",
    meaning="While this file exists, the endpoint answers 503 to new tasks.",
    example="/var/app/drain",
)
CRASH_LEDGER: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_CRASH_LEDGER",
    form="path or `off`",
    cast=casts.absolute_path_or("off"),
    default=None,
    default_text="a private file under /dev/shm, or else in the temporary directory",
    meaning="The file that says which tasks run, so that the next process can log those that were "
    "cut off when a process was killed.",
    example="/var/app/ledger",
)
TASKS: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_TASKS",
    form="list of modules or dotted paths",
    cast=casts.dotted_paths,
    default=(),
    default_text="empty",
    meaning="Modules whose Django `@task` functions may run, or the dotted paths of single ones, "
    "besides those in the table.",
    example="shop.tasks mail.tasks.send_letter",
    room="beanstalk_dispatch.contrib.tasks",
)
RESULTS: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_RESULTS",
    form="CACHES alias or `db`",
    cast=casts.string,
    default=None,
    default_text="none",
    meaning="Where the results of tasks are kept: a cache that all processes share, or the "
    "database.",
    example="results",
    room="beanstalk_dispatch.contrib.results",
)
RESULT_TTL: Final[Setting[timedelta]] = Setting(
    variable="BEANSTALK_DISPATCH_RESULT_TTL",
    form="duration `1h`, `1d`, `30d`",
    cast=casts.time_to_live,
    default=timedelta(days=1),
    default_text="1d",
    meaning="How long a result is kept after the last change of its status. At most 400d.",
    example="1d",
)
RESULT_ARGUMENTS: Final[Setting[bool]] = Setting(
    variable="BEANSTALK_DISPATCH_RESULT_ARGUMENTS",
    form="bool",
    cast=casts.boolean,
    default=False,
    default_text="False",
    meaning="Keep the arguments of a task with its result. They may be personal data.",
    example="True",
)
TRUSTED_PEERS: Final[Setting[tuple[Network, ...] | None]] = Setting(
    variable="BEANSTALK_DISPATCH_TRUSTED_PEERS",
    form="list of networks",
    cast=casts.networks,
    default=None,
    default_text="loopback and the container's gateway",
    meaning="The addresses that may POST to the endpoint. Replaces the default.",
    example="127.0.0.0/8 ::1 172.17.0.1",
)

BACKLOG_TOKEN: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_BACKLOG_TOKEN",
    form=f"string of {casts.MIN_KEY_LENGTH} or more characters without whitespace",
    cast=casts.token,
    default=None,
    default_text="none",
    meaning="A client that shows this bearer token may read the backlog of the queues. If it is "
    "not set, only the trusted peers of a worker may.",
    example="another-long-random-string",
    secret=True,
)
BACKLOG_THREADS: Final[Setting[int]] = Setting(
    variable="BEANSTALK_DISPATCH_BACKLOG_THREADS",
    form="integer",
    cast=casts.integer(1, 10_000),
    default=10,
    default_text="10",
    meaning="How many tasks one worker process runs at a time. The backlog's wanted processes are "
    "counted with it.",
    example="10",
)
BACKLOG_PER_THREAD: Final[Setting[int]] = Setting(
    variable="BEANSTALK_DISPATCH_BACKLOG_PER_THREAD",
    form="integer",
    cast=casts.integer(1, 1_000_000),
    default=1,
    default_text="1",
    meaning="How many messages there may be for each thread of the workers. With more, the backlog "
    "wants another process.",
    example="1",
)

CORE: Final = SettingsGroup(
    prefix=PREFIX,
    settings=(
        WORKER,
        TABLE,
        QUEUES,
        SQS_KEY,
        SQS_SECRET,
        SQS_TOKEN,
        SQS_REGION,
        SQS_ENDPOINT_URL,
        CREATE_QUEUES,
        MESSAGE_FORMAT,
        TASK_TIMEOUT,
        SAFE_TASK,
        ON_FAILURE,
        EXECUTE_SYNCHRONOUSLY,
        ON_COMMIT,
        CHECK_CALLS,
        OUTBOX,
        OUTBOX_DATABASES,
        SIGNING_KEYS,
        MAX_AGE,
        PERIODIC_TASKS,
        LEASE_CACHE,
        DEAD_LETTER_QUEUE,
        SEND_TIMEOUT,
        WARM,
        DRAIN_FILE,
        CRASH_LEDGER,
        TRUSTED_PEERS,
        TASKS,
        RESULTS,
        RESULT_TTL,
        RESULT_ARGUMENTS,
        BACKLOG_TOKEN,
        BACKLOG_THREADS,
        BACKLOG_PER_THREAD,
    ),
)
"""The package's own settings."""

_groups: Final = [CORE]


def _without_prefix(variable: str) -> str:
    """A variable's name without what all of ours have in common."""
    return variable.removeprefix(PREFIX).removeprefix("DISPATCH_")


SETTINGS: Final[Mapping[str, Setting[Any]]] = MappingProxyType(
    {_without_prefix(setting.variable).lower(): setting for setting in CORE.settings}
)
"""Config field name → its Setting."""


# --- the resolved configuration --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Config:
    """The resolved configuration; the Setting of the same name documents each field.

    It is compared and hashed by identity. Its repr shows no secret.
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
    on_failure: str
    execute_synchronously: bool
    on_commit: bool
    check_calls: bool
    outbox: str
    outbox_databases: tuple[str, ...]
    signing_keys: tuple[str, ...]
    max_age: timedelta | None
    periodic_tasks: tuple[str, ...]
    lease_cache: str | None
    dead_letter_queue: str | None
    send_timeout: timedelta
    warm: bool
    drain_file: str | None
    crash_ledger: str | None
    trusted_peers: tuple[Network, ...] | None
    tasks: tuple[str, ...]
    results: str | None
    result_ttl: timedelta
    result_arguments: bool
    backlog_token: str | None
    backlog_threads: int
    backlog_per_thread: int
    sources: Mapping[str, str]
    """Field name → where its value came from, in the words of ``Values.sources``."""

    def location_of(self, queue_name: str) -> str | None:
        """The region and account of a queue, if every address in ``queues`` that has its name says
        the same."""
        found = {each.location for each in self.queues.values() if each.name == queue_name}
        return found.pop() if len(found) == 1 else None

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


@functools.cache
def get_config() -> Config:
    """The process's configuration, read once. Raises a ConfigurationError with every problem.

    A Django setting wins over the environment (``NAME``, or the file that ``NAME_FILE`` names),
    which wins over the default. An empty value counts as not set.
    """
    values = _resolve_group(CORE)
    config = _make_config(values)
    problems = [*values.problems, *_find_contradictions(config)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigurationError(f"{count} in the configuration of beanstalk_dispatch:{lines}")
    _log_if_not_installed()
    return _first_config.setdefault("config", config)


def _make_config(values: Values) -> Config:
    return Config(
        worker=values[WORKER],
        table=values[TABLE],
        queues=values[QUEUES],
        sqs_key=values[SQS_KEY],
        sqs_secret=values[SQS_SECRET],
        sqs_token=values[SQS_TOKEN],
        sqs_region=values[SQS_REGION],
        sqs_endpoint_url=values[SQS_ENDPOINT_URL],
        create_queues=values[CREATE_QUEUES],
        message_format=values[MESSAGE_FORMAT],
        task_timeout=values[TASK_TIMEOUT],
        safe_task=values[SAFE_TASK],
        on_failure=values[ON_FAILURE],
        execute_synchronously=values[EXECUTE_SYNCHRONOUSLY],
        on_commit=values[ON_COMMIT],
        check_calls=values[CHECK_CALLS],
        outbox=values[OUTBOX],
        outbox_databases=values[OUTBOX_DATABASES],
        signing_keys=values[SIGNING_KEYS],
        max_age=values[MAX_AGE],
        periodic_tasks=values[PERIODIC_TASKS],
        lease_cache=values[LEASE_CACHE],
        dead_letter_queue=values[DEAD_LETTER_QUEUE],
        send_timeout=values[SEND_TIMEOUT],
        warm=values[WARM],
        drain_file=values[DRAIN_FILE],
        crash_ledger=values[CRASH_LEDGER],
        trusted_peers=values[TRUSTED_PEERS],
        tasks=values[TASKS],
        results=values[RESULTS],
        result_ttl=values[RESULT_TTL],
        result_arguments=values[RESULT_ARGUMENTS],
        backlog_token=values[BACKLOG_TOKEN],
        backlog_threads=values[BACKLOG_THREADS],
        backlog_per_thread=values[BACKLOG_PER_THREAD],
        sources=MappingProxyType(
            {name: values.sources[setting.variable] for name, setting in SETTINGS.items()}
        ),
    )


def _find_contradictions(config: Config) -> Iterable[str]:
    key, secret = SQS_KEY.variable, SQS_SECRET.variable
    if config.sqs_key and not config.sqs_secret:
        yield f"{key} is set without {secret}; set both, or neither for the instance profile"
    if config.sqs_secret and not config.sqs_key:
        yield f"{secret} is set without {key}; set both, or neither for the instance profile"
    if config.sqs_token and not (config.sqs_key and config.sqs_secret):
        yield f"{SQS_TOKEN.variable} is set without {key} and {secret}"
    if config.dead_letter_queue and config.queues and config.dead_letter_queue not in config.queues:
        yield (
            f"{DEAD_LETTER_QUEUE.variable}: {config.dead_letter_queue!r} is not in "
            f"{QUEUES.variable}; known: {listed(config.queues)}"
        )
    if config.max_age and not config.signing_keys:
        yield (
            f"{MAX_AGE.variable} is set without {SIGNING_KEYS.variable}; without a signature a "
            "sender may write any time"
        )
    if config.backlog_token in config.signing_keys:
        yield (
            f"{BACKLOG_TOKEN.variable} is also in {SIGNING_KEYS.variable}; a client that reads the "
            "backlog could then sign messages"
        )
    if config.signing_keys and config.message_format == "base64":
        yield (
            f"{MESSAGE_FORMAT.variable}: base64 messages cannot be signed, but "
            f"{SIGNING_KEYS.variable} is set; write json, or unset the keys"
        )


# --- reading ---------------------------------------------------------------------------------


class _EscapedEnvironment(FileAwareMapping):  # type: ignore[misc]  # it has no type hints
    r"""``NAME``, or the content of the file that ``NAME_FILE`` names, with ``\$`` for each ``$``.

    django-environ replaces a value ``$OTHER`` with that of the variable OTHER, but a generated
    secret may start with a ``$``. With ``escape_proxy`` it makes ``$`` of ``\$`` again.
    https://django-environ.readthedocs.io/en/latest/tips.html#proxy-value
    """

    def __getitem__(self, key: str) -> str:
        value: str = super().__getitem__(key)
        return value.replace("$", r"\$")


def _read_environment() -> environ.FileAwareEnv:
    environment = environ.FileAwareEnv()
    environment.ENVIRON = _EscapedEnvironment(os.environ, cache=False)
    environment.escape_proxy = True
    return environment


def _resolve_group(group: SettingsGroup) -> Values:
    """Read every setting of a group. A wrong value is a problem in the result, not an error."""
    environment = _read_environment()
    values: dict[Setting[Any], Any] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    for setting in group.settings:
        try:
            value, source = _read_setting(setting, environment)
        except (OSError, ValueError) as exc:
            value, source = setting.default, "default"
            problems.append(_problem_line(setting, exc))
        values[setting], sources[setting.variable] = value, source
    return Values(sources=sources, problems=tuple(problems), _values=values)


def _read_setting(setting: Setting[T], environment: environ.FileAwareEnv) -> tuple[T, str]:
    """The value, and where it came from."""
    value = getattr(settings, setting.variable, None)
    if isinstance(value, str):
        value = value.strip()
    if value not in (None, ""):
        if setting.secret:
            casts.refuse_reference(value)
        return setting.cast(value), "settings"
    is_file = bool(file_of(setting))

    def cast_unless_empty(raw: str) -> T | None:
        content = raw.strip()
        if not content:
            if is_file and setting.secret:
                raise InvalidValue("the file is empty")
            return None
        if setting.secret:
            casts.refuse_reference(content)
        else:
            casts.refuse_shell_syntax(content)
        return (setting.cast_file if is_file and setting.cast_file else setting.cast)(content)

    found: T | None = environment(setting.variable, cast=cast_unless_empty, default=None)
    if found is None:
        return setting.default, "default"
    return found, "file" if is_file else "environment"


def _problem_line(setting: Setting[Any], exc: OSError | ValueError) -> str:
    """One line of the error. The file of a secret is not named: its name may be the secret."""
    match exc:
        case OSError():
            file = "the file" if setting.secret else repr(exc.filename)
            return f"{setting.variable}_FILE: cannot read {file}: {exc.strerror}"
        case UnicodeDecodeError():
            return f"{setting.variable}_FILE: the content of the file is not UTF-8"
        case InvalidValue(reason=reason) if setting.secret:
            return f"{setting.variable}: {reason} (the value is secret and not shown)"
        case _ if setting.secret:
            return (
                f"{setting.variable}: expected a {setting.form} (the value is secret and not shown)"
            )
        case _:
            return f"{setting.variable}: {exc}"


def file_of(setting: Setting[Any]) -> str:
    """The file that ``NAME_FILE`` names in the environment. The empty string means none."""
    return os.environ.get(f"{setting.variable}_FILE", "")


def empty_variables() -> list[str]:
    """The variables that are present in the environment without a value. They count as not set."""
    variables = [setting.variable for group in _groups for setting in group.settings]
    return [name for name in variables if name in os.environ and not os.environ[name].strip()]


def contradictions() -> list[str]:
    """A line for each pair of valid variables that contradict each other."""
    return list(_find_contradictions(_make_config(values_of(CORE))))


def is_in_environment(value: str) -> bool:
    """Whether a variable of any name contains this value, as a Django setting read from it does."""
    return any(value in found for found in os.environ.values())


def import_rooms() -> list[str]:
    """Import the contrib room of each variable that is set; why any could not be imported."""
    sources, problems = values_of(CORE).sources, []
    for setting in CORE.settings:
        if setting.room and sources[setting.variable] != "default":
            try:
                importlib.import_module(setting.room)
            except Exception as exc:
                problems.append(f"{setting.variable}: {exc}")
    return problems


def default_region() -> str | None:
    """The region that the environment names, in the order in which the AWS SDKs look."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


# --- misspelt names --------------------------------------------------------------------------

# Two letters in the wrong order differ by two characters: one is removed and added elsewhere.
_MAX_SLIP: Final = 2
_WHOLE_NAME_CUTOFF: Final = 0.9


def unknown_variables() -> dict[str, str | None]:
    """Variables and Django settings that look like ours but are not: most often a misspelling.

    Maps each name to the known one that is closest to it, or to None if none is close.
    """
    variables = {setting.variable for group in _groups for setting in group.settings}
    known = variables | {f"{variable}_FILE" for variable in variables}
    present = {*os.environ, *(name for name in dir(settings) if name.isupper())}
    unknown: dict[str, str | None] = {}
    for group in _groups:
        candidates = sorted(name for name in known if name.startswith(group.prefix))
        for name in sorted(present - known):
            if name.startswith(group.prefix):
                closest = _closest_name(name, candidates)
                is_slip = closest is not None and _count_differences(name, closest) <= _MAX_SLIP
                if is_slip or not group.is_prefix_shared:
                    unknown[name] = closest
    for name in sorted(present):
        if name.startswith("DISPATCH_") and PREFIX + name in known:
            unknown[name] = PREFIX + name
    return unknown


def _closest_name(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that was most likely meant, or None if none is close.

    Whole names are compared first, and then names without the prefix, because a long prefix in
    common makes any two names look alike.
    """
    if whole := get_close_matches(name, candidates, n=1, cutoff=_WHOLE_NAME_CUTOFF):
        return whole[0]
    stems = {_without_prefix(candidate): candidate for candidate in candidates}
    close = get_close_matches(_without_prefix(name), stems, n=1)
    return stems[close[0]] if close else None


def _count_differences(one: str, other: str) -> int:
    """How many characters must be removed from ``one``, and added to it, to get ``other``."""
    blocks = SequenceMatcher(None, one, other).get_matching_blocks()
    return len(one) + len(other) - 2 * sum(block.size for block in blocks)


# --- the log at start ------------------------------------------------------------------------


def log_start() -> None:
    """Log one line that says what this process is, or why it cannot be."""
    try:
        config = get_config()
    except ConfigurationError as exc:
        logger.error("start worker=unknown reason=configuration error=%s", exc)
        return
    variable, source = WORKER.variable, config.sources["worker"]
    reason = f"{variable} is not set" if source == "default" else f"{variable} from {source}"
    logger.info(
        "start worker=%s reason=%r functions=%s queues=%s%s",
        config.worker,
        reason,
        listed([*config.table, *config.tasks]),
        listed(config.queues),
        " signed=yes" if config.signing_keys else "",
    )
    if not (config.signing_keys or config.execute_synchronously):
        logger.warning(
            "start signed=no: anyone who may send to the queue may run every listed function; set "
            "%s to one long random string, on the web environment first and then on the worker "
            'environment: python -c "import secrets; print(secrets.token_urlsafe(32))"',
            SIGNING_KEYS.variable,
        )


def _log_if_not_installed() -> None:
    if apps.ready and not apps.is_installed(_APP):
        logger.warning(
            "not in INSTALLED_APPS app=%s: no check, no command and no start line says what is "
            "wrong; add it",
            _APP,
        )


def log_rooms() -> None:
    """Import the contrib rooms of the variables that are set, and log each that has no effect."""
    for problem in import_rooms():
        logger.error("variable without effect error=%s", problem)


def log_unknown_variables() -> None:
    """Log one line that names the variables that are most likely misspelt, if there are any."""
    unknown = unknown_variables()
    if unknown:
        meant = {closest for closest in unknown.values() if closest}
        logger.warning(
            "unknown variables names=%r did_you_mean=%r", listed(unknown), listed(sorted(meant))
        )
