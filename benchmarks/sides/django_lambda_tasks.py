"""django-lambda-tasks. It sends when the transaction has committed, so at once outside of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import django
from django.conf import settings

from .tasks import URL

DISTRIBUTIONS = ["django-lambda-tasks", "django", "botocore"]


def operations() -> dict[str, Callable[..., Any]]:
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "lambda_tasks"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        LAMBDA_TASKS_QUEUES={"default": {"queue_url": URL}},
        USE_TZ=True,
    )
    django.setup()
    from lambda_tasks.decorators import lambda_task

    def do_nothing(*, number: int, word: str, x: int) -> None:
        """Do nothing."""

    noop = lambda_task(do_nothing)

    def one(count: int) -> None:
        for number in range(count):
            noop.execute_on_commit(number=number, word="two", x=3)

    return {"one": one}
