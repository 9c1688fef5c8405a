"""The environment, as one frozen Config: the only reader of our variables and Django settings."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

import environ
from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver

from .exceptions import ConfigurationError, listed
from .queue_address import REGION, QueueAddress, endpoint_host

logger = logging.getLogger("beanstalk_dispatch")

PREFIX: Final = "BEANSTALK_"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SEPARATORS = re.compile(r"[\s,]+")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?")
_DURATION_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


# --- casts -----------------------------------------------------------------------------------
# Each takes the variable's text, or the Python value of a Django setting, and raises a
# ValueError that shows the bad item and says what is accepted.


def cast_str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} given; text is accepted")
    if not _is_unicode(value):
        raise ValueError(f"{value!r} is not Unicode text")
    return value


def _is_unicode(text: str) -> bool:
    """False for what os.environ makes of bytes that are not UTF-8: no key, no name can be that."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cast_credential(value: object) -> str:
    """What can stand in an HTTP header: with a line break in it, the error would show it all."""
    text = cast_str(value)
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("there is white space in it, or what is no ASCII")
    return text


def cast_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    try:
        return _BOOLEANS[str(value).lower()]
    except KeyError:
        raise ValueError(f"{value!r} is not a boolean; write True or False") from None


def cast_duration(value: object) -> timedelta:
    """``90`` and ``90s`` are seconds; ``5m``, ``1h`` and ``1d`` minutes, hours and days."""
    if isinstance(value, timedelta):
        duration = value
    else:
        match = _DURATION.fullmatch(str(value))
        if match is None:
            raise ValueError(f"{value!r} is not a duration; write 90, 90s, 5m or 1h")
        try:
            duration = timedelta(seconds=float(match[1]) * _DURATION_UNITS[match[2]])
        except OverflowError:
            raise ValueError(f"{value!r} is too long; at most 12h") from None
    # A message can be in flight for 12 hours, so no task may take longer:
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html
    if not timedelta(0) < duration <= timedelta(hours=12):
        raise ValueError(f"{value!r} is out of range; more than 0s and at most 12h")
    return duration


def cast_list(value: object) -> tuple[str, ...]:
    """Items between white space or commas, or a JSON list."""
    if isinstance(value, str):
        items: object = (
            _json(value) if value.startswith("[") else [i for i in _SEPARATORS.split(value) if i]
        )
    else:
        items = value
    if not isinstance(items, Iterable) or isinstance(items, Mapping):
        raise ValueError(f"{type(items).__name__} given; a list of texts is accepted")
    names = tuple(items)
    for item in names:
        if not isinstance(item, str) or not item or not _is_unicode(item):
            raise ValueError(f"{item!r} is not a text; a list of texts is accepted")
    return names


def cast_pairs(value: object) -> Mapping[str, str]:
    """``key=value`` between white space or commas, or a JSON object."""
    if not isinstance(value, str):
        pairs = value
    elif value.startswith("{"):
        pairs = _json(value)
    else:
        pairs = _split_pairs(value)
    if not isinstance(pairs, Mapping):
        raise ValueError(f"{type(pairs).__name__} given; a mapping of texts is accepted")
    for name, item in pairs.items():
        if not (isinstance(name, str) and isinstance(item, str) and name and item) or not (
            _is_unicode(name + item)
        ):
            raise ValueError(f"{name!r}: {item!r} is not a pair of texts")
    return MappingProxyType(dict(pairs))


def _split_pairs(value: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in filter(None, _SEPARATORS.split(value)):
        name, equals, target = item.partition("=")
        if not (name and equals and target):
            raise ValueError(
                f"{item!r} is not a pair; write name=value pairs with white space between them"
            )
        if name in pairs:
            raise ValueError(f"{name!r} is given twice")
        pairs[name] = target
    return pairs


def _json(value: str) -> object:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(doubled)!r} is given twice")
        return dict(pairs)

    try:
        return json.loads(value, object_pairs_hook=unique)
    except json.JSONDecodeError as exc:
        raise ValueError(f"starts like JSON but is not: {exc.msg} at character {exc.pos}") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def cast_table(value: object) -> Mapping[str, str]:
    table = cast_pairs(value)
    if isinstance(value, str):  # a dict in settings may name what only a check can judge
        for name, path in table.items():
            if not _DOTTED_PATH.fullmatch(path):
                raise ValueError(f"'{name}={path}' is not name=package.module.attribute")
    return table


def cast_queues(value: object) -> Mapping[str, QueueAddress]:
    return MappingProxyType(
        {alias: QueueAddress.parse(queue) for alias, queue in cast_pairs(value).items()}
    )


def cast_dotted_path(value: object) -> str:
    path = cast_str(value)
    if not _DOTTED_PATH.fullmatch(path):
        raise ValueError(f"{path!r} is not a dotted path; write package.module.Class")
    return path


def cast_region(value: object) -> str:
    region = cast_str(value)
    if not REGION.fullmatch(region):
        raise ValueError(f"{region!r} is not an AWS region; write one like eu-west-1")
    return region


def cast_url(value: object) -> str:
    url = cast_str(value)
    if "@" in url:
        raise ValueError("a user name or password in the URL is not accepted")
    if endpoint_host(url) is None:
        raise ValueError(f"{value!r} is not a URL; write https://host or http://host:port")
    return url.rstrip("/")


def cast_path(value: object) -> str:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or not os.path.isabs(path):
        raise ValueError(f"{value!r} is not an absolute path")
    return path


def cast_networks(value: object) -> tuple[Network, ...]:
    return tuple(_network(item) for item in cast_list(value))


def _network(item: str) -> Network:
    try:
        return ipaddress.ip_network(item)
    except ValueError as exc:
        raise ValueError(f"{exc}; write addresses or networks like 10.0.0.0/8") from None


def one_of(*words: str) -> Callable[[object], str]:
    def cast(value: object) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is not accepted; write {' or '.join(words)}")
        return cast_str(value)

    return cast


# --- the variables ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One variable: its name, its form for people, its cast, and what it means."""

    variable: str
    form: str
    cast: Callable[[object], Any]
    meaning: str
    default_text: str
    secret: bool = False


def _setting(
    variable: str,
    form: str,
    cast: Callable[[object], Any],
    default: Any,
    meaning: str,
    *,
    default_text: str | None = None,
    secret: bool = False,
) -> Any:
    setting = Setting(
        variable=PREFIX + variable,
        form=form,
        cast=cast,
        meaning=meaning,
        default_text=str(default) if default_text is None else default_text,
        secret=secret,
    )
    return dataclasses.field(
        default_factory=lambda: default, metadata={"setting": setting}, repr=not secret
    )


_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Config:
    """The resolved configuration. Compared and hashed by identity; its repr shows no secret."""

    worker: bool = _setting(
        "WORKER", "bool", cast_bool, False,
        "This machine is a worker. Elsewhere the endpoint answers 404 and no task runs.",
    )  # fmt: skip
    table: Mapping[str, str] = _setting(
        "DISPATCH_TABLE", "pairs `name=package.module.attribute`", cast_table, _EMPTY,
        "The functions that may run, and nothing else.",
        default_text="empty",
    )  # fmt: skip
    queues: Mapping[str, QueueAddress] = _setting(
        "DISPATCH_QUEUES", "pairs `alias=queue` (name, URL or ARN)", cast_queues, _EMPTY,
        "Queue aliases. With any set, an unknown name is an error; without, names are taken as "
        "they are.",
        default_text="empty",
    )  # fmt: skip
    sqs_key: str | None = _setting(
        "DISPATCH_SQS_KEY", "text without white space", cast_credential, None,
        "AWS access key id. Leave unset to use the instance profile.",
        default_text="boto3's own chain", secret=True,
    )  # fmt: skip
    sqs_secret: str | None = _setting(
        "DISPATCH_SQS_SECRET", "text without white space", cast_credential, None,
        "AWS secret access key; goes with the key.",
        default_text="boto3's own chain", secret=True,
    )  # fmt: skip
    sqs_token: str | None = _setting(
        "DISPATCH_SQS_TOKEN", "text without white space", cast_credential, None,
        "AWS session token of temporary credentials; goes with the key.",
        default_text="none", secret=True,
    )  # fmt: skip
    sqs_region: str | None = _setting(
        "DISPATCH_SQS_REGION", "AWS region", cast_region, None,
        "Region of queues given by name. A URL or ARN names its own.",
        default_text="AWS_REGION, AWS_DEFAULT_REGION, boto3's own, us-east-1",
    )  # fmt: skip
    sqs_endpoint_url: str | None = _setting(
        "DISPATCH_SQS_ENDPOINT_URL", "URL", cast_url, None,
        "A VPC endpoint or a local SQS server.",
        default_text="none",
    )  # fmt: skip
    create_queues: bool = _setting(
        "DISPATCH_CREATE_QUEUES", "bool", cast_bool, False,
        "Create a missing queue with a dead-letter queue beside it. For local use.",
    )  # fmt: skip
    message_format: str = _setting(
        "DISPATCH_MESSAGE_FORMAT", "`json` or `base64`", one_of("json", "base64"), "json",
        "What is sent; both are always read. base64 is for beanstalk-dispatch 0.1 workers during "
        "a migration.",
    )  # fmt: skip
    task_timeout: timedelta = _setting(
        "DISPATCH_TASK_TIMEOUT", "duration `90`, `90s`, `5m`, `1h`", cast_duration,
        timedelta(minutes=2),
        "Time limit of a task that does not set its own. At most 12h.",
        default_text="2m",
    )  # fmt: skip
    safe_task: str = _setting(
        "DISPATCH_SAFE_TASK", "dotted path", cast_dotted_path,
        "beanstalk_dispatch.safe_task.SafeTask",
        "The class that wraps every plain function, and a base of every listed SafeTask.",
    )  # fmt: skip
    on_failure: str = _setting(
        "DISPATCH_ON_FAILURE", "`redeliver` or `acknowledge`", one_of("redeliver", "acknowledge"),
        "redeliver",
        "What a failed task answers: 500, so that SQS redelivers and finally dead-letters it, or "
        "200, as 0.1 did.",
    )  # fmt: skip
    execute_synchronously: bool = _setting(
        "DISPATCH_EXECUTE_SYNCHRONOUSLY", "bool", cast_bool, False,
        "Run tasks in the calling process, without SQS. For tests and development.",
    )  # fmt: skip
    on_commit: bool = _setting(
        "DISPATCH_ON_COMMIT", "bool", cast_bool, False,
        "Send after the current database transaction commits.",
    )  # fmt: skip
    signing_keys: tuple[str, ...] = _setting(
        "DISPATCH_SIGNING_KEYS", "list", cast_list, (),
        "The first key signs, any verifies. With any set, an unsigned or forged message is "
        "refused.",
        default_text="empty", secret=True,
    )  # fmt: skip
    periodic_tasks: tuple[str, ...] = _setting(
        "DISPATCH_PERIODIC_TASKS", "list", cast_list, (),
        "Table names that a POST of cron.yaml, which cannot be signed, may run.",
        default_text="empty",
    )  # fmt: skip
    lease_cache: str | None = _setting(
        "DISPATCH_LEASE_CACHE", "CACHES alias", cast_str, None,
        "Run each message once to success: a lease in this cache, which all workers share.",
        default_text="none",
    )  # fmt: skip
    dead_letter_queue: str | None = _setting(
        "DISPATCH_DEAD_LETTER_QUEUE", "queue alias", cast_str, None,
        "Where a message goes, with its traceback, when its retries are spent or it can never run.",
        default_text="none",
    )  # fmt: skip
    drain_file: str | None = _setting(
        "DISPATCH_DRAIN_FILE", "path", cast_path, None,
        "While this file exists the endpoint answers 503 to new tasks.",
        default_text="none",
    )  # fmt: skip
    trusted_peers: tuple[Network, ...] | None = _setting(
        "DISPATCH_TRUSTED_PEERS", "list of networks", cast_networks, None,
        "Who may POST. Replaces the default.",
        default_text="loopback and the container's gateway",
    )  # fmt: skip
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """Field name → where its value came from: ``settings``, ``environment`` or ``default``."""


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        field.name: field.metadata["setting"]
        for field in dataclasses.fields(Config)
        if "setting" in field.metadata
    }
)
"""Config field name → its Setting."""


# --- resolving -------------------------------------------------------------------------------


@functools.cache
def get_config() -> Config:
    """The process's configuration, read once. Raises ConfigurationError with every problem.

    A Django setting wins over the environment (``NAME``, or the file that ``NAME_FILE`` names),
    which wins over the default. Empty is unset.
    """
    environment = environ.FileAwareEnv.ENVIRON.__class__(os.environ, cache=False)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    for name, setting in SETTINGS.items():
        try:
            raw, sources[name] = _lookup(setting.variable, environment)
            if raw is not None:
                values[name] = setting.cast(raw)
        except OSError as exc:
            where = "" if setting.secret else f": {exc.filename}"  # the secret itself, by mistake
            problems.append(f"{setting.variable}_FILE: {exc.strerror}{where}")
        except ValueError as exc:
            shown = f"not valid (the value is secret); {setting.form} is accepted"
            problems.append(f"{setting.variable}: {shown if setting.secret else exc}")
    config = Config(**values, sources=MappingProxyType(sources))
    problems += _contradictions(config)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        text = "".join(f"\n  - {problem}" for problem in problems)
        raise ConfigurationError(f"{count} in the configuration of beanstalk_dispatch:{text}")
    return config


def _lookup(variable: str, environment: Mapping[str, str]) -> tuple[Any, str]:
    value = getattr(settings, variable, None)
    if isinstance(value, str):
        value = value.strip()
    if value not in (None, ""):
        return value, "settings"
    text = environment.get(variable, "").strip()
    return (text, "environment") if text else (None, "default")


def _contradictions(config: Config) -> Iterable[str]:
    key, secret = SETTINGS["sqs_key"].variable, SETTINGS["sqs_secret"].variable
    if config.sqs_key and not config.sqs_secret:
        yield f"{key} is set without {secret}; set both, or neither for the instance profile"
    if config.sqs_secret and not config.sqs_key:
        yield f"{secret} is set without {key}; set both, or neither for the instance profile"
    if config.sqs_token and not (config.sqs_key and config.sqs_secret):
        yield f"{SETTINGS['sqs_token'].variable} is set without {key} and {secret}"
    if config.dead_letter_queue and config.queues and config.dead_letter_queue not in config.queues:
        yield (
            f"{SETTINGS['dead_letter_queue'].variable}: {config.dead_letter_queue!r} is not in "
            f"{SETTINGS['queues'].variable}; known: {listed(config.queues)}"
        )
    if config.signing_keys and config.message_format == "base64":
        yield (
            f"{SETTINGS['message_format'].variable}: base64 messages cannot be signed, but "
            f"{SETTINGS['signing_keys'].variable} is set; write json, or unset the keys"
        )


@receiver(setting_changed)
def _forget(*, setting: str, **_: object) -> None:
    if setting.startswith(PREFIX):
        get_config.cache_clear()


def default_region() -> str | None:
    """The region the environment names, in the order the AWS SDKs and boto3 look."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def unknown_variables() -> list[str]:
    """Names that look like ours but are not: most often a misspelt variable."""
    known = {setting.variable for setting in SETTINGS.values()}
    known |= {f"{variable}_FILE" for variable in known}
    names = {*os.environ, *(name for name in dir(settings) if name.isupper())}
    return sorted(name for name in names - known if name.startswith(f"{PREFIX}DISPATCH_"))


def log_start() -> None:
    """One line that says what this process is, or why it cannot be."""
    try:
        config = get_config()
    except ConfigurationError as exc:
        logger.error("start worker=unknown reason=configuration error=%s", exc)
        return
    setting, source = SETTINGS["worker"].variable, config.sources["worker"]
    reason = f"{setting} is not set" if source == "default" else f"{setting} from {source}"
    logger.info(
        "start worker=%s reason=%r functions=%s queues=%s",
        config.worker,
        reason,
        listed(config.table),
        listed(config.queues),
    )
