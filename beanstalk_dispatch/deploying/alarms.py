"""The alarms on dead-letter queues, and the topic of SNS that makes them known to people."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .plan import Plan, PlannedQueue
from .template_files import shell_commands

TOPIC: Final = re.compile(r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):\d{12}:[\w-]{1,256}(\.fifo)?")
_SUBSCRIBER: Final = re.compile(r"[^@\s]+@[^@\s]+")


def is_topic_or_address(value: str) -> bool:
    """Return True for the ARN of a topic, and for an e-mail address."""
    return bool(TOPIC.fullmatch(value) or _SUBSCRIBER.fullmatch(value))


def topic_commands(plan: Plan) -> Iterator[str]:
    """Yield the commands that make a topic for an address, in each region of a queue."""
    address = plan.alarm_topic or ""
    if not _SUBSCRIBER.fullmatch(address):
        return
    for queue in _one_of_each_region(plan):
        topic = _topic_of(plan, queue) or ""
        name = topic.rpartition(":")[2]
        yield from shell_commands(
            "topic", region=queue.region, name=name, topic=topic, address=address
        )
    yield f"#    AWS sends a link to {address}: no alarm arrives before it is opened"


def alarm_command(plan: Plan, dead: PlannedQueue) -> str:
    """Return the command for the alarm of a dead-letter queue. It rings if something is there."""
    (command,) = shell_commands("alarm", region=dead.region, name=dead.name)
    topic = _topic_of(plan, dead)
    return f"{command} \\\n  --alarm-actions {topic}" if topic else command


def warnings(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each region whose alarms nobody hears."""
    for queue in _one_of_each_region(plan):
        if _topic_of(plan, queue) is None:
            yield (
                f"the alarms in {queue.region} tell nobody: add --alarm-topic with an e-mail "
                f"address, or with the ARN of a topic in {queue.region}"
            )


def _topic_of(plan: Plan, queue: PlannedQueue) -> str | None:
    """Return the topic of a queue's alarm. CloudWatch takes one of the alarm's own region only."""
    given = plan.alarm_topic or ""
    if _SUBSCRIBER.fullmatch(given):
        region, account = queue.region, queue.account
        return f"arn:{queue.partition}:sns:{region}:{account}:{plan.name}-alarms"
    match = TOPIC.fullmatch(given)
    return given if match and match["region"] == queue.region else None


def _one_of_each_region(plan: Plan) -> list[PlannedQueue]:
    return list({each.region: each for each in plan.dead_letter_queues.values()}.values())
