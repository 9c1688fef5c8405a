"""The project with this package."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import date
from typing import Any

from django.db import DatabaseError, transaction

from beanstalk_dispatch.client import Call, schedule, schedule_function, schedule_many
from beanstalk_dispatch.safe_task import SafeTask

from .effects import done


class Audited(SafeTask):
    def on_success(self, *args: Any, **kwargs: Any) -> None:
        done("audited", *args)


class ImportRates(SafeTask, max_attempts=6, backoff=0):
    def run(self, currency: str) -> None:
        done("rates", currency, self.delivery.message.attempt - 1)
        if self.delivery.message.attempt < 6:
            raise ConnectionError("the bank does not answer")


def remind(user_id: int) -> None:
    done("reminded", user_id)


def reindex(shop_id: int) -> None:
    done("reindexed", shop_id)


def clean_up() -> None:
    done("cleaned up")


def thumbnail(image_id: int) -> None:
    done("thumbnail", image_id)


class Crawl(SafeTask, timeout=1):
    def run(self, site: str) -> None:
        time.sleep(20)

    def on_error(self, exception: Exception, site: str) -> None:
        done("stopped", site)


class Charge(Audited):
    def run(self, order_id: int) -> None:
        done("charged", order_id)


class Export(SafeTask):
    def run(self, day: date) -> None:
        done("exported", day, self.delivery.message.id)


def flash_sale(shop_id: int) -> None:
    done("flash sale", shop_id)  # pragma: no cover - it has expired


def receipt(order_id: int) -> None:
    done("receipt", order_id)


def send() -> str:
    """Send all but the periodic one, which cron.yaml sends. Return the id of the export."""
    schedule_function("jobs", ImportRates, "EUR")
    schedule("jobs", Call(remind, [7], delay=1))
    for _ in range(2):
        schedule("jobs", Call(reindex, [3], unique="3"))
    schedule_many("jobs", [Call(thumbnail, [number]) for number in range(3)])
    schedule_function("jobs", Crawl, "example.com")
    schedule_function("jobs", Charge, 9)
    schedule("jobs", Call(flash_sale, [3], expires=0.1))
    with transaction.atomic():
        schedule("jobs", Call(receipt, [9]), on_commit=True)
    with suppress(DatabaseError), transaction.atomic():
        schedule("jobs", Call(receipt, [10]), on_commit=True)
        raise DatabaseError("the order cannot be saved")
    return schedule_function("jobs", Export, date(2026, 12, 1))
