"""Sample tasks: quick, slow, failing, retried, too slow for its time limit, and periodic."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any

from beanstalk_dispatch.safe_task import Retry, SafeTask

logger = logging.getLogger(__name__)


def send_welcome(user_id: int) -> None:
    """End at once."""
    logger.info("welcome user=%d", user_id)


def resize_image(path: str, *, seconds: float = 2.0) -> None:
    """Take some seconds."""
    time.sleep(seconds)
    logger.info("resized path=%s", path)


def charge_card(order_id: int) -> None:
    """Fail each time, until SQS moves the message to the dead-letter queue."""
    raise RuntimeError(f"the card of order {order_id} was declined")


class SyncStock(SafeTask):
    """Ask for a retry at the first attempt, and succeed at the second."""

    def run(self, warehouse: str, *, ready_on_attempt: int = 2) -> None:
        attempt = self.delivery.message.attempt if self.delivery and self.delivery.message else 1
        if attempt < ready_on_attempt:
            raise Retry(f"warehouse {warehouse} is closed", delay=1)
        logger.info("synced warehouse=%s attempt=%d", warehouse, attempt)


class BuildReport(SafeTask):
    """Run a loop of one minute under a time limit of one second."""

    timeout_timedelta = timedelta(seconds=1)

    def run(self, name: str) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            sum(range(1000))

    def on_error(self, exception: BaseException, /, *args: Any, **kwargs: Any) -> None:
        logger.info("report given up: %s", exception)


def clean_up() -> None:
    """Run when cron.yaml says so."""
    logger.info("cleaned up")
