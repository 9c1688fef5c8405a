"""The tasks of the rehearsal."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from beanstalk_dispatch.safe_task import SafeTask


class Nap(SafeTask):
    """Waits for a while, and may take a second."""

    timeout_timedelta = timedelta(seconds=1)

    def run(self, seconds: float, note: str = "") -> None:
        time.sleep(seconds)


class LongNap(SafeTask):
    """Waits for a while, and may take three seconds: the longest time limit of the project."""

    timeout_timedelta = timedelta(seconds=3)

    def run(self, seconds: float) -> None:
        message = self.delivery and self.delivery.message
        logging.getLogger("shop").info("nap begins id=%s", message and message.id)
        time.sleep(seconds)


class CleanUp(SafeTask):
    """A periodic task, from which beanstalk_eb makes cron.yaml."""

    schedule = "0 4 * * *"

    def run(self) -> None:
        """Do nothing."""


def reconcile_the_stock_of_one_warehouse(number: int) -> None:
    """Stand for a task with a long name."""
