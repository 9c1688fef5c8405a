"""The project with Celery."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import date
from functools import partial
from typing import Any

from celery import Celery, Task, group
from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache import cache
from django.db import DatabaseError, transaction

from .effects import done

app = Celery("shop", broker="sqs://key:a-secret-key@" + os.environ["CELERY_SQS"])
app.conf.update(
    broker_transport_options={
        "region": "eu-west-1", "is_secure": False, "wait_time_seconds": 1, "polling_interval": 0.1,
    },
    task_default_queue=os.environ["CELERY_QUEUE"],
    worker_enable_remote_control=False,
    beat_schedule={"clean up": {"task": f"{__name__}.clean_up", "schedule": 0.5}},
)  # fmt: skip


class Audited(Task):
    abstract = True

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        done("audited", *args)


@app.task(bind=True, max_retries=5)
def import_rates(self: Task, currency: str) -> None:
    done("rates", currency, self.request.retries)
    try:
        if self.request.retries < 5:
            raise ConnectionError("the bank does not answer")
    except ConnectionError as exc:
        raise self.retry(exc=exc, countdown=0) from None


@app.task
def remind(user_id: int) -> None:
    done("reminded", user_id)


@app.task
def reindex(shop_id: int) -> None:
    cache.delete(f"reindex:{shop_id}")
    done("reindexed", shop_id)


@app.task
def clean_up() -> None:
    done("cleaned up")


@app.task
def thumbnail(image_id: int) -> None:
    done("thumbnail", image_id)


@app.task(soft_time_limit=1)
def crawl(site: str) -> None:
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        done("stopped", site)
        raise


@app.task(base=Audited)
def charge(order_id: int) -> None:
    done("charged", order_id)


@app.task(bind=True)
def export(self: Task, day: date) -> None:
    done("exported", day, self.request.id)


@app.task
def flash_sale(shop_id: int) -> None:
    done("flash sale", shop_id)


@app.task
def receipt(order_id: int) -> None:
    done("receipt", order_id)


def send() -> str:
    """Send all but the periodic one, which beat sends. Return the id of the export."""
    import_rates.delay("EUR")
    remind.apply_async((7,), countdown=1)
    for _ in range(2):
        if cache.add("reindex:3", True):
            reindex.delay(3)
    group(thumbnail.s(number) for number in range(3)).delay()
    crawl.delay("example.com")
    charge.delay(9)
    flash_sale.apply_async((3,), expires=0.1)
    with transaction.atomic():
        transaction.on_commit(partial(receipt.delay, 9))
    with suppress(DatabaseError), transaction.atomic():
        transaction.on_commit(partial(receipt.delay, 10))
        raise DatabaseError("the order cannot be saved")
    exported: str = export.delay(date(2026, 12, 1)).id
    return exported
