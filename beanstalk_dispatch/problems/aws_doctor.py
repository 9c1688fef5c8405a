"""The findings that AWS shows of the credentials and of each queue. Nothing is sent or changed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Final

from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress, location_of
from beanstalk_dispatch.conf.variables import QUEUES
from beanstalk_dispatch.deploying.listed_tasks import longest_time_limit
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.sqs.inspection import InspectionError, Inspector
from beanstalk_dispatch.sqs.queue import redrive_policy
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES
from beanstalk_dispatch.sqs.session import DEFAULT_REGION

from .findings import ok, problem, safely

MAX_SKEW_SECONDS: Final = 300
"""AWS refuses requests whose time is further off.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
"""
_NOTICEABLE_SKEW_SECONDS: Final = 30
_MIN_RECEIVES: Final = 3
_UNKNOWN: Final = (
    "look the error up: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/"
    "CommonErrors.html"
)


def examine() -> Iterator[CheckMessage]:
    """Yield a line for the credentials, the region and the clock, and several for each queue."""
    try:
        config = get_config()
    except ConfigurationError:  # which the examination without AWS reports
        return
    inspector = Inspector(config)
    yield from safely("credentials", _examine_identity(inspector, config))
    for alias, address in config.queues.items():
        topic = f"queue {alias}"
        yield from safely(topic, _examine_queue(topic, alias, address, config, inspector))
    if not config.queues:
        yield problem("W206", "queues")
    yield from _examine_clock(inspector)


def _examine_identity(inspector: Inspector, config: Config) -> Iterator[CheckMessage]:
    try:
        region = inspector.region()
    except InspectionError as exc:
        yield _failed_request("region", "the profile", exc)
        return
    if region:
        yield ok("region", region)
    elif not all(address.region for address in config.queues.values()):
        yield problem("W201", "region")
    try:
        identity = inspector.identity()
    except InspectionError as exc:
        yield _failed_request("credentials", "GetCallerIdentity", exc)
    else:
        yield ok("credentials", f"account {identity['Account']}, {identity['Arn']}")


def _failed_request(topic: str, operation: str, exc: InspectionError) -> CheckMessage:
    """Return the finding for a request that failed.

    A missing permission is not a fault of the queue.
    """
    if exc.is_denied:
        return problem("W202", topic, operation=operation, exc=exc, remedy=exc.remedy)
    return problem("E203", topic, operation=operation, exc=exc, remedy=exc.remedy or _UNKNOWN)


def _examine_clock(inspector: Inspector) -> Iterator[CheckMessage]:
    skew = inspector.clock_skew
    if skew is None:
        return
    if abs(skew) > MAX_SKEW_SECONDS:
        yield problem("E204", "clock", skew=skew)
    elif abs(skew) > _NOTICEABLE_SKEW_SECONDS:
        yield problem("W205", "clock", skew=skew)
    else:
        yield ok("clock", f"this machine's clock differs from AWS's by {skew:+.0f} s")


# --- one queue -------------------------------------------------------------------------------


def _examine_queue(
    topic: str, alias: str, address: QueueAddress, config: Config, inspector: Inspector
) -> Iterator[CheckMessage]:
    try:
        url = inspector.queue_url(address)
    except InspectionError as exc:
        yield _unreachable_queue(topic, address, "GetQueueUrl", exc, inspector)
        return
    may_be_sent_to = yield from _examine_sending(topic, address, url, inspector)
    if not may_be_sent_to:
        return
    try:
        attributes = inspector.attributes(address, url)
    except InspectionError as exc:
        if exc.is_denied and config.backlog_token and alias in config.work_queues:
            yield problem("E207", topic, exc=exc)
        else:
            yield _unreachable_queue(topic, address, "GetQueueAttributes", exc, inspector)
        return
    yield from _examine_size_and_key(topic, attributes)
    if config.is_dead_letter_queue(alias):
        yield from _examine_dead_letter_queue(topic, attributes, address, url)
    else:
        yield from _examine_visibility(topic, attributes, config)
        yield from _examine_redrive_policy(topic, attributes, address, inspector)
        yield from _examine_consumers(topic, attributes)


def _unreachable_queue(
    topic: str, address: QueueAddress, operation: str, exc: InspectionError, inspector: Inspector
) -> CheckMessage:
    if exc.is_denied and operation == "GetQueueUrl":
        return problem("E219", topic, exc=exc, remedy=exc.remedy)
    if not exc.is_missing_queue:
        return _failed_request(topic, operation, exc)
    region = inspector.region(address)
    guessed = "" if region else ", the default, because no region is configured"
    return problem(
        "E208",
        topic,
        name=address.name,
        region=region or DEFAULT_REGION,
        guessed=guessed,
    )


def _examine_dead_letter_queue(
    topic: str, attributes: Mapping[str, str], address: QueueAddress, url: str
) -> Iterator[CheckMessage]:
    """Yield the findings of the queue to which this package sends dead letters: nobody reads it."""
    if attributes.get("RedrivePolicy"):
        yield problem("E220", topic, url=url)
    yield _depth_of_dead_letters(topic, attributes, address.name)


def _examine_sending(
    topic: str, address: QueueAddress, url: str, inspector: Inspector
) -> Generator[CheckMessage, None, bool]:
    """Yield a finding. Return True if a further request about the queue is worth making."""
    try:
        inspector.try_to_send_nothing(address, url)
    except InspectionError as exc:
        if exc.is_denied:
            hint = _of_another_account(url, inspector) or exc.remedy
            yield problem("E209", topic, exc=exc, hint=hint)
            return True
        yield _unreachable_queue(topic, address, "SendMessageBatch", exc, inspector)
        return False
    yield ok(topic, f"{url} answers, and does not refuse to be sent to")
    return True


def _of_another_account(url: str, inspector: Inspector) -> str:
    """Return the remedy for a queue of another account; empty if it is one of this account."""
    account = (location_of(url) or "").rpartition("/")[2]
    if not (account and inspector.account) or account == inspector.account:
        return ""
    return (
        f"the queue belongs to the account {account}, and these credentials to {inspector.account}:"
        f" correct {QUEUES.variable}, or allow sqs:SendMessage in the policy of the queue, too"
    )


def _examine_visibility(
    topic: str, attributes: Mapping[str, str], config: Config
) -> Iterator[CheckMessage]:
    visibility = int(attributes.get("VisibilityTimeout", "30"))
    limit = longest_time_limit(config)
    if visibility > limit:
        yield ok(topic, f"VisibilityTimeout {visibility} s is above the time limit of {limit:g} s")
    else:
        yield problem("W210", topic, visibility=visibility, limit=limit)


def _examine_redrive_policy(
    topic: str, attributes: Mapping[str, str], address: QueueAddress, inspector: Inspector
) -> Iterator[CheckMessage]:
    target, receives = redrive_policy(attributes.get("RedrivePolicy"))
    if target is None or receives is None:
        yield problem("E211", topic)
        return
    if receives < _MIN_RECEIVES:
        yield problem("W212", topic, receives=receives)
    yield _dead_letters(topic, target, address, inspector)


def _dead_letters(topic: str, arn: str, source: QueueAddress, inspector: Inspector) -> CheckMessage:
    try:
        address = QueueAddress.parse(arn)
        if source.endpoint_url or not source.url:  # another endpoint knows it by its name only
            address = QueueAddress(name=address.name, region=source.region)
        found = inspector.attributes(address, inspector.queue_url(address))
    except (InspectionError, ValueError) as exc:
        if isinstance(exc, InspectionError) and exc.is_missing_queue:
            return problem("E213", topic, arn=arn)
        remedy = exc.remedy if isinstance(exc, InspectionError) else "correct RedrivePolicy"
        return problem("W214", topic, arn=arn, exc=exc, remedy=remedy)
    return _depth_of_dead_letters(topic, found, address.name)


def _depth_of_dead_letters(topic: str, attributes: Mapping[str, str], name: str) -> CheckMessage:
    depth = int(attributes.get("ApproximateNumberOfMessages", "0"))
    if depth:
        return problem("W215", topic, depth=depth, name=name)
    return ok(topic, f"the dead-letter queue {name} is empty")


def _examine_size_and_key(topic: str, attributes: Mapping[str, str]) -> Iterator[CheckMessage]:
    size = int(attributes.get("MaximumMessageSize", MAX_MESSAGE_BYTES))
    if size < MAX_MESSAGE_BYTES:
        yield problem("W216", topic, size=size, maximum=MAX_MESSAGE_BYTES)
    if key := attributes.get("KmsMasterKeyId"):
        yield problem("W217", topic, key=key)


def _examine_consumers(topic: str, attributes: Mapping[str, str]) -> Iterator[CheckMessage]:
    waiting = int(attributes.get("ApproximateNumberOfMessages", "0"))
    in_flight = int(attributes.get("ApproximateNumberOfMessagesNotVisible", "0"))
    if waiting and not in_flight:
        yield problem("W218", topic, waiting=waiting)
    else:
        yield ok(topic, f"about {waiting} messages wait, {in_flight} are in flight")
