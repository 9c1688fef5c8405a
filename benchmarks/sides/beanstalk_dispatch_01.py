"""beanstalk-dispatch 0.1, whose package has this one's name. Its endpoint is AWS_ENDPOINT_URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings

from .tasks import KEY, QUEUE, REGION, SECRET

DISTRIBUTIONS = ["beanstalk-dispatch", "django", "botocore"]


def operations() -> dict[str, Callable[..., Any]]:
    settings.configure(
        BEANSTALK_DISPATCH_SQS_KEY=KEY,
        BEANSTALK_DISPATCH_SQS_SECRET=SECRET,
        BEANSTALK_DISPATCH_SQS_REGION=REGION,
    )
    from beanstalk_dispatch.client import schedule_function

    def one(count: int) -> None:
        for number in range(count):
            schedule_function(QUEUE, "noop", number, "two", x=3)

    return {"one": one}
