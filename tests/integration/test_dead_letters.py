"""A redrive that is killed at its worst moment: a letter is sent, and not yet deleted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

from beanstalk_dispatch.sqs.administration import get_attributes
from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment
from tests.dead_letters import Dead
from tests.proxy import Proxy
from tests.services import NO_COVERAGE, ROOT, until


def test_a_redrive_that_is_killed_loses_nothing_and_repeats_one_letter(
    sqs_env: Environment, proxy: Proxy, queue_name: str
) -> None:
    dead = Dead(queue_name)
    dead.sent_many(12)
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    is_killed = threading.Event()

    def spoil(operation: str, request: dict[str, Any]) -> Any:
        if operation == "DeleteMessageBatch" and proxy.counts[operation] > 3:
            is_killed.wait(30)
            return 500, {}
        return None

    proxy.spoil = spoil
    command = [sys.executable, "-m", "django", "beanstalk_dead_letters", "redrive"]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", **NO_COVERAGE}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        until(lambda: proxy.counts["DeleteMessageBatch"] > 3)
    finally:
        process.kill()
        process.wait()
        is_killed.set()
    assert get_attributes(open_queue("jobs")).visible == 4
    assert get_attributes(dead.queue).total == 12 - 3
