"""Compare the attributes of a queue with the needs of a Lambda function that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from django.core.checks import CheckMessage

from beanstalk_dispatch.deploying.lambda_files import MIN_RECEIVES, RECEIVES, VISIBILITY_FACTOR
from beanstalk_dispatch.sqs.queue import redrive_policy

from .findings import ok, problem


def check(queue: str, *, timeout: int, attributes: Mapping[str, str]) -> Iterator[CheckMessage]:
    """Yield the attributes that do not fit a function with this timeout, or that all do."""
    found = list(_find_problems(f"queue {queue}", timeout, attributes))
    yield from found or [ok(f"queue {queue}", f"it fits a function of {timeout} s")]


def _find_problems(obj: str, timeout: int, attributes: Mapping[str, str]) -> Iterator[CheckMessage]:
    visibility, needed = int(attributes.get("VisibilityTimeout", "30")), VISIBILITY_FACTOR * timeout
    if visibility < needed:
        yield problem("E501", obj, visibility=visibility, factor=VISIBILITY_FACTOR, needed=needed)
    _, receives = redrive_policy(attributes.get("RedrivePolicy"))
    if receives is None:
        yield problem("E502", obj)
    elif receives < MIN_RECEIVES:
        yield problem("E503", obj, receives=receives, minimum=MIN_RECEIVES, advised=RECEIVES)
