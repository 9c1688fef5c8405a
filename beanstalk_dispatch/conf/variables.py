"""The package's own variables, as data, in the order of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from . import casts, secret_casts
from .policies import ISOLATIONS, policies
from .setting import Setting, SettingsGroup, flag

if TYPE_CHECKING:
    from .casts import Network
    from .queue_address import QueueAddress

PREFIX: Final = "BEANSTALK_"
_NO_PAIRS: Final[Mapping[str, Any]] = MappingProxyType({})

WORKER: Final = flag(
    "BEANSTALK_WORKER",
    "This machine is a worker. Elsewhere the endpoint answers 404, and no task runs.",
)
TABLE: Final[Setting[Mapping[str, str]]] = Setting(
    variable="BEANSTALK_DISPATCH_TABLE",
    form="pairs `name=package.module.attribute`",
    cast=casts.table,
    default=_NO_PAIRS,
    meaning="The functions that may run. No other function runs.",
    example="send_welcome=shop.tasks.send_welcome build_report=shop.tasks.BuildReport",
)
QUEUES: Final[Setting[Mapping[str, QueueAddress]]] = Setting(
    variable="BEANSTALK_DISPATCH_QUEUES",
    form="pairs `alias=queue` (name, URL or ARN)",
    cast=casts.queues,
    default=_NO_PAIRS,
    meaning="Aliases of queues. If any are set, other names are errors.",
    example="mail=shop-mail work=shop-work",
)
SQS_KEY: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_KEY",
    form="string",
    cast=secret_casts.aws_credential,
    default_text="boto3's own credentials",
    meaning="AWS access key ID. Leave it unset to use the instance profile.",
    example="the-access-key-id",
    secret=True,
)
SQS_SECRET: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_SECRET",
    form="string",
    cast=secret_casts.aws_credential,
    default_text="boto3's own credentials",
    meaning="AWS secret access key, with the key.",
    example="the-secret-access-key",
    secret=True,
)
SQS_TOKEN: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_TOKEN",
    form="string",
    cast=secret_casts.aws_credential,
    meaning="AWS session token of temporary credentials, with both.",
    example="the-session-token",
    secret=True,
)
SQS_REGION: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_REGION",
    form="AWS region",
    cast=casts.region,
    default_text="AWS_REGION, AWS_DEFAULT_REGION, boto3's own, us-east-1",
    meaning="Region of queues that are given by name.",
    example="eu-west-1",
)
SQS_ENDPOINT_URL: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_SQS_ENDPOINT_URL",
    form="URL",
    cast=casts.url,
    meaning="A VPC endpoint or local SQS server to use.",
    example="https://vpce-0123.sqs.eu-west-1.vpce.amazonaws.com",
)
CREATE_QUEUES: Final = flag(
    "BEANSTALK_DISPATCH_CREATE_QUEUES",
    "Create missing queues, with dead-letter queues. For local use.",
)
MESSAGE_FORMAT: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_MESSAGE_FORMAT",
    form="`json` or `base64`",
    cast=casts.choice("json", "base64"),
    default="json",
    meaning="The format of sent messages; both are always read. Workers of beanstalk-dispatch "
    "0.1 need base64.",
)
TASK_TIMEOUT: Final[Setting[timedelta]] = Setting(
    variable="BEANSTALK_DISPATCH_TASK_TIMEOUT",
    form="duration `90`, `90s`, `5m`, `1h`",
    cast=casts.duration,
    default=timedelta(minutes=2),
    default_text="2m",
    meaning="Time limit of a task without its own. At most 12h.",
)
SAFE_TASK: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_SAFE_TASK",
    form="dotted path",
    cast=casts.dotted_path,
    default="beanstalk_dispatch.safe_task.SafeTask",
    meaning="The class that runs plain functions. Its observers watch every task.",
)
OBSERVERS: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_OBSERVERS",
    form="list of dotted paths",
    cast=casts.strings,  # a path that cannot be imported is W021, because tasks run without it
    default=(),
    meaning="Classes or instances that watch tasks, deliveries and sent messages.",
    example="shop.observers.Stopwatch",
)
ON_FAILURE: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_ON_FAILURE",
    form="`redeliver` or `acknowledge`",
    cast=casts.choice("redeliver", "acknowledge"),
    default="redeliver",
    meaning="The answer to a failed task. redeliver: 500, so SQS delivers it again. "
    "acknowledge: 200, as in 0.1, so it is deleted.",
)
EXECUTE_SYNCHRONOUSLY: Final = flag(
    "BEANSTALK_DISPATCH_EXECUTE_SYNCHRONOUSLY",
    "Run tasks in the calling process, without SQS.",
)
ON_COMMIT: Final = flag(
    "BEANSTALK_DISPATCH_ON_COMMIT",
    "Send messages after the current transaction commits.",
)
OUTBOX: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_OUTBOX",
    form="`always`, `on-failure` or `off`",
    cast=casts.choice("always", "on-failure", "off"),
    default="off",
    meaning="Store messages in the database until SQS has taken them. always: in the caller's "
    "transaction. on-failure: only those that could not be sent after it.",
    example="always",
)
OUTBOX_DATABASES: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_OUTBOX_DATABASES",
    form="list of DATABASES aliases",
    cast=casts.strings,
    default=("default",),
    default_text="default",
    meaning="The databases that have an outbox.",
)
SIGNING_KEYS: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_SIGNING_KEYS",
    form="list",
    cast=secret_casts.signing_keys,
    cast_file=secret_casts.signing_keys_of_file,
    default=(),
    meaning="The first key signs, every key verifies. If any are set, an unsigned or forged "
    f"message is refused. Each has {secret_casts.MIN_KEY_LENGTH} or more characters.",
    example="one-long-random-string",
    secret=True,
)
MAX_AGE: Final[Setting[timedelta | None]] = Setting(
    variable="BEANSTALK_DISPATCH_MAX_AGE",
    form="duration `30m`, `12h`, `4d`",
    cast=casts.age,
    meaning="Refuse a signed message sent longer ago, or due longer ago after a delay of more "
    "than 15m. More than 15m, at most 14d.",
    example="4d",
)
PERIODIC_TASKS: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_PERIODIC_TASKS",
    form="list, or `off`",
    cast=casts.strings_or_off,
    default=(),
    meaning="Names that a POST of cron.yaml, which cannot be signed, may run. `off`: another "
    "environment with the same bundle runs them.",
    example="clean_up",
)
LEASE_CACHE: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_LEASE_CACHE",
    form="CACHES alias",
    cast=casts.string,
    meaning="Run each message to success only once, with leases in this cache, which all "
    "workers share.",
    example="leases",
)
DEAD_LETTER_QUEUE: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE",
    form="queue alias",
    cast=casts.string,
    meaning="Where a message goes, with its traceback, that will not run again.",
    example="dead",
)
MAX_RECEIVES: Final[Setting[int | None]] = Setting(
    variable="BEANSTALK_DISPATCH_MAX_RECEIVES",
    form="integer",
    cast=casts.integer(1, 1_000),  # as SQS
    meaning="The queue's maxReceiveCount or Elastic Beanstalk's MaxRetries, so that the last "
    "failure is known. beanstalk_worker asks SQS.",
    example="10",
)
SEND_TIMEOUT: Final[Setting[timedelta]] = Setting(
    variable="BEANSTALK_DISPATCH_SEND_TIMEOUT",
    form="duration `10`, `10s`, `1m`",
    cast=casts.duration,
    default=timedelta(seconds=10),
    default_text="10s",
    meaning="How long a request that sends may take, with its retries.",
)
WARM: Final = flag(
    "BEANSTALK_DISPATCH_WARM",
    "Prepare boto3 when Django starts, so that the first message is as fast as others.",
)
DRAIN_FILE: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_DRAIN_FILE",
    form="path",
    cast=casts.absolute_path(),
    meaning="While this file exists, the endpoint answers 503 to new tasks.",
    example="/var/app/drain",
)
CRASH_LEDGER: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_CRASH_LEDGER",
    form="path or `off`",
    cast=casts.absolute_path("off"),
    default_text="a private file",
    meaning="The file from which the next process logs the tasks that a kill has cut off.",
    example="/var/app/ledger",
)
ISOLATION: Final[Setting[str]] = Setting(
    variable="BEANSTALK_DISPATCH_ISOLATION",
    form="`thread`, `process` or `fresh`",
    cast=casts.choice(*ISOLATIONS),
    default="thread",
    meaning="Where tasks run. thread: in threads of the worker. process: in child processes, "
    "one task at a time. fresh: each in a new child process.",
    example="process",
)
POLICIES: Final[Setting[Mapping[str, Any]]] = Setting(
    variable="BEANSTALK_DISPATCH_POLICIES",
    form="pairs `task.option=value`, or JSON",
    cast=policies,
    default=_NO_PAIRS,
    meaning="Options of single tasks or modules, which win over the code.",
    example="send_welcome.timeout=30s shop.tasks.max_attempts=3",
)
CHILD_MEMORY: Final[Setting[int | None]] = Setting(
    variable="BEANSTALK_DISPATCH_CHILD_MEMORY",
    form="size `300M`, `1G`",
    cast=casts.size,
    meaning="Resident memory above which a child process is ended, with its task.",
    example="300M",
)
CHILD_TASKS: Final[Setting[int | None]] = Setting(
    variable="BEANSTALK_DISPATCH_CHILD_TASKS",
    form="integer",
    cast=casts.integer(1, 1_000_000_000),
    meaning="Number of tasks after which a child process is replaced.",
    example="1000",
)
TRUSTED_PEERS: Final[Setting[tuple[Network, ...] | None]] = Setting(
    variable="BEANSTALK_DISPATCH_TRUSTED_PEERS",
    form="list of networks",
    cast=casts.networks,
    default_text="loopback and the container's gateway",
    meaning="Addresses that may POST to the endpoint, in place of the default.",
    example="127.0.0.0/8 ::1 172.17.0.1",
)
TASKS: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_TASKS",
    form="list of modules or dotted paths",
    cast=casts.dotted_paths,
    default=(),
    meaning="The tasks that may run: modules, for the SafeTask subclasses and `@task` functions "
    "that they define, and paths of functions.",
    example="shop.tasks mail.sending.send_letter",
    room="beanstalk_dispatch.contrib.tasks",
    is_room_optional=True,
)
CELERY_QUEUES: Final[Setting[tuple[str, ...]]] = Setting(
    variable="BEANSTALK_DISPATCH_CELERY_QUEUES",
    form="list",
    cast=casts.strings,
    default=(),
    meaning="The queues whose messages may be Celery's. Celery signs none, so these run also if "
    "there are signing keys.",
    example="celery",
    room="beanstalk_dispatch.contrib.celery",
)
RESULTS: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_RESULTS",
    form="CACHES alias or `db`",
    cast=casts.string,
    meaning="Where results of tasks are kept: a shared cache, or the database.",
    example="results",
    room="beanstalk_dispatch.contrib.results",
)
EMBEDDED_METRICS: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_EMBEDDED_METRICS",
    form="`stdout` or `udp://IP:PORT`",
    cast=casts.stdout_or_agent,
    meaning="Where a line about each delivery is written, of which CloudWatch makes metrics.",
    example="udp://127.0.0.1:25888",
    room="beanstalk_dispatch.contrib.cloudwatch",
)
RESULT_TTL: Final[Setting[timedelta]] = Setting(
    variable="BEANSTALK_DISPATCH_RESULT_TTL",
    form="duration `1h`, `1d`, `30d`",
    cast=casts.time_to_live,
    default=timedelta(days=1),
    default_text="1d",
    meaning="How long a result is kept after the last change of its status. At most 400d.",
)
RESULT_ARGUMENTS: Final = flag(
    "BEANSTALK_DISPATCH_RESULT_ARGUMENTS",
    "Keep the arguments of a task with its result. They may be personal data.",
)
BACKLOG_TOKEN: Final[Setting[str | None]] = Setting(
    variable="BEANSTALK_DISPATCH_BACKLOG_TOKEN",
    form=f"string of {secret_casts.MIN_KEY_LENGTH} or more characters",
    cast=secret_casts.token,
    meaning="The bearer token of clients that may read the backlog. Without it only trusted peers "
    "of a worker may.",
    example="another-long-random-string",
    secret=True,
)
BACKLOG_PER_THREAD: Final[Setting[int]] = Setting(
    variable="BEANSTALK_DISPATCH_BACKLOG_PER_THREAD",
    form="integer",
    cast=casts.integer(1, 1_000_000),
    default=1,
    meaning="Messages for each thread, above which the backlog wants another process.",
)

CORE: Final = SettingsGroup(
    prefix=PREFIX,
    settings=tuple(each for each in list(globals().values()) if isinstance(each, Setting)),
)
"""The settings above, in this order."""


def without_prefix(variable: str) -> str:
    """Return a variable's name without the prefix that all of ours have."""
    return variable.removeprefix(PREFIX).removeprefix("DISPATCH_")


SETTINGS: Final[Mapping[str, Setting[Any]]] = MappingProxyType(
    {without_prefix(setting.variable).lower(): setting for setting in CORE.settings}
)
"""The Setting of each field of Config, by the field's name."""
