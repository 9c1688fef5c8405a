"""The findings that AWS shows of the credentials and of each queue. Nothing is sent or changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.core.checks import CheckMessage

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.conf.variables import QUEUES, SQS_KEY, SQS_REGION
from beanstalk_dispatch.deploying.listed_tasks import longest_time_limit
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.sqs.backlog import queue_names
from beanstalk_dispatch.sqs.inspection import InspectionError, Inspector
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES
from beanstalk_dispatch.sqs.session import DEFAULT_REGION

from .findings import DOCS, ok, problem

MAX_SKEW_SECONDS: Final = 300
"""AWS refuses requests whose time is further off.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
"""
_NOTICEABLE_SKEW_SECONDS: Final = 30
_MIN_RECEIVES: Final = 3


def examine() -> Iterator[CheckMessage]:
    """Yield a line for the credentials, the region and the clock, and several for each queue."""
    try:
        config = get_config()
    except ConfigurationError:  # which the examination without AWS reports
        return
    inspector = Inspector(config)
    yield from _examine_identity(inspector, config)
    for alias, address in config.queues.items():
        yield from _examine_queue(alias, address, config, inspector)
    if not config.queues:
        yield problem("W206", "queues", f"{QUEUES.variable} is not set, so no queue is looked at")
    yield from _examine_clock(inspector)


def _examine_identity(inspector: Inspector, config: Config) -> Iterator[CheckMessage]:
    if region := inspector.region():
        yield ok("region", region)
    elif not all(address.region for address in config.queues.values()):
        yield problem(
            "W201",
            "region",
            "no region is configured, and a queue is given by its name",
            f"eb setenv {SQS_REGION.variable}=eu-west-1, or write the queue's URL",
        )
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
    message = f"{operation}: {exc}"
    if exc.is_denied:
        return problem(
            "W202",
            topic,
            f"these credentials may not {operation}, so this is not known ({exc})",
            "Elastic Beanstalk's roles lack this permission; to see it, run the command with your "
            "own credentials",
        )
    if exc.may_be_the_clock:
        hint = "set the clock of this machine, or correct the secret key"
    elif exc.is_without_credentials:
        hint = f"on AWS use the instance profile; elsewhere set {SQS_KEY.variable} and its secret"
    else:
        hint = "see that this machine reaches AWS, and that the credentials are valid"
    return problem("E203", topic, message, hint)


def _examine_clock(inspector: Inspector) -> Iterator[CheckMessage]:
    skew = inspector.clock_skew
    if skew is None:
        return
    message = f"this machine's clock differs from AWS's by {skew:+.0f} s"
    if abs(skew) > MAX_SKEW_SECONDS:
        yield problem("E204", "clock", message, "sudo chronyc makestep")
    elif abs(skew) > _NOTICEABLE_SKEW_SECONDS:
        yield problem("W205", "clock", message, "sudo chronyc makestep")
    else:
        yield ok("clock", message)


# --- one queue -------------------------------------------------------------------------------


def _examine_queue(
    alias: str, address: QueueAddress, config: Config, inspector: Inspector
) -> Iterator[CheckMessage]:
    topic = f"queue {alias}"
    try:
        url = inspector.queue_url(address)
    except InspectionError as exc:
        yield _unreachable_queue(topic, address, "GetQueueUrl", exc, inspector)
        return
    yield from _examine_sending(topic, address, url, inspector)
    try:
        attributes = inspector.attributes(address, url)
    except InspectionError as exc:
        if exc.is_denied and config.backlog_token and alias in queue_names(config):
            yield problem(
                "E207",
                topic,
                f"these credentials may not ask for the backlog: {exc}",
                "allow sqs:GetQueueAttributes on the queue; manage.py beanstalk_eb writes the "
                "policy",
            )
        else:
            yield _unreachable_queue(topic, address, "GetQueueAttributes", exc, inspector)
        return
    yield from _examine_visibility(topic, attributes, config)
    yield from _examine_redrive_policy(topic, attributes, address, inspector)
    yield from _examine_size(topic, attributes)
    yield from _examine_encryption(topic, attributes)
    yield from _examine_consumers(topic, attributes)


def _unreachable_queue(
    topic: str, address: QueueAddress, operation: str, exc: InspectionError, inspector: Inspector
) -> CheckMessage:
    if not exc.is_missing_queue:
        return _failed_request(topic, operation, exc)
    region = inspector.region(address) or DEFAULT_REGION
    return problem(
        "E208",
        topic,
        f"there is no queue {address.name!r} in {region} for these credentials",
        f"correct {QUEUES.variable}, or {SQS_REGION.variable}; to be sure, write the queue's URL",
    )


def _examine_sending(
    topic: str, address: QueueAddress, url: str, inspector: Inspector
) -> Iterator[CheckMessage]:
    try:
        inspector.try_to_send_nothing(address, url)
    except InspectionError as exc:
        if exc.is_denied:
            yield problem(
                "E209",
                topic,
                f"these credentials may not send: {exc}",
                "allow sqs:SendMessage on the queue; manage.py beanstalk_eb writes the policy",
            )
        elif not exc.is_missing_queue:  # which the request for its attributes reports
            yield _failed_request(topic, "SendMessageBatch", exc)
    else:
        yield ok(topic, f"{url} answers, and does not refuse to be sent to")


def _examine_visibility(
    topic: str, attributes: Mapping[str, str], config: Config
) -> Iterator[CheckMessage]:
    visibility = int(attributes.get("VisibilityTimeout", "30"))
    limit = longest_time_limit(config)
    if visibility > limit:
        yield ok(topic, f"VisibilityTimeout {visibility} s is above the time limit of {limit:g} s")
    else:
        yield problem(
            "W210",
            topic,
            f"VisibilityTimeout {visibility} s is not above the longest time limit, {limit:g} s: "
            "a message is delivered again while its task runs",
            "raise it, unless the daemon's own VisibilityTimeout or beanstalk_worker hides the "
            "messages",
        )


def _examine_redrive_policy(
    topic: str, attributes: Mapping[str, str], address: QueueAddress, inspector: Inspector
) -> Iterator[CheckMessage]:
    policy: dict[str, Any] = json.loads(attributes.get("RedrivePolicy") or "{}")
    target = str(policy.get("deadLetterTargetArn", ""))
    if not target:
        yield problem(
            "E211",
            topic,
            "it has no redrive policy: a message that always fails is delivered until its "
            "retention period ends, and is then lost",
            "create a dead-letter queue, and set RedrivePolicy; manage.py beanstalk_eb prints the "
            "commands",
        )
        return
    receives = int(policy.get("maxReceiveCount", 0))
    if receives < _MIN_RECEIVES:
        yield problem(
            "W212",
            topic,
            f"maxReceiveCount is {receives}: a deployment can use up {receives} receives",
            "raise it to 10 or more",
        )
    yield _dead_letters(topic, target, address, inspector)


def _dead_letters(topic: str, arn: str, source: QueueAddress, inspector: Inspector) -> CheckMessage:
    try:
        address = QueueAddress.parse(arn)
        if source.endpoint_url or not source.url:  # another endpoint knows it by its name only
            address = QueueAddress(name=address.name, region=source.region)
        found = inspector.attributes(address, inspector.queue_url(address))
    except (InspectionError, ValueError) as exc:
        if isinstance(exc, InspectionError) and exc.is_missing_queue:
            return problem(
                "E213",
                topic,
                f"the dead-letter queue {arn} does not exist: messages that fail are lost",
                "create it, or correct RedrivePolicy",
            )
        return problem("W214", topic, f"the dead-letter queue {arn} could not be read: {exc}")
    depth = int(found.get("ApproximateNumberOfMessages", "0"))
    if depth:
        return problem(
            "W215",
            topic,
            f"about {depth} messages are in the dead-letter queue {address.name}",
            f"find the reason in the log, correct it, and redrive them: {DOCS}/failures.md",
        )
    return ok(topic, f"the dead-letter queue {address.name} is empty")


def _examine_size(topic: str, attributes: Mapping[str, str]) -> Iterator[CheckMessage]:
    size = int(attributes.get("MaximumMessageSize", MAX_MESSAGE_BYTES))
    if size < MAX_MESSAGE_BYTES:
        yield problem(
            "W216",
            topic,
            f"MaximumMessageSize is {size:,} bytes; SQS allows {MAX_MESSAGE_BYTES:,}",
            f"set MaximumMessageSize={MAX_MESSAGE_BYTES}, unless your messages are small",
        )


def _examine_encryption(topic: str, attributes: Mapping[str, str]) -> Iterator[CheckMessage]:
    if key := attributes.get("KmsMasterKeyId"):
        yield problem(
            "W217",
            topic,
            f"it is encrypted with the KMS key {key}",
            "allow kms:GenerateDataKey and kms:Decrypt on that key to both roles",
        )


def _examine_consumers(topic: str, attributes: Mapping[str, str]) -> Iterator[CheckMessage]:
    waiting = int(attributes.get("ApproximateNumberOfMessages", "0"))
    in_flight = int(attributes.get("ApproximateNumberOfMessagesNotVisible", "0"))
    if waiting and not in_flight:
        yield problem(
            "W218",
            topic,
            f"about {waiting} messages wait and none is in flight: perhaps nobody reads this queue",
            "give it a worker environment or a beanstalk_worker; each reads the queues that it is "
            "configured for",
        )
    else:
        yield ok(topic, f"about {waiting} messages wait, {in_flight} are in flight")
