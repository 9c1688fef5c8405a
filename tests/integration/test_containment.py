"""One failure costs one task: culprits beside blameless tasks, on both consumers and both drivers.

``make faults`` plays every scene at its full length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.containment.machine import Consumer, Servers, endpoint, poller
from benchmarks.containment.scenes import SCENES, Scene, culprits
from tests.proxy import Proxy
from tests.services import postgres, valkey

pytestmark = pytest.mark.usefixtures("unmeasured")
MIXED = Scene(
    culprits=[
        *culprits(
            2, "limit-in-commit", "begin", "enter-atomic", "panic", "generator-exit",
            "keyboard-interrupt", "system-exit", "swallows", "log-locks", "activate",
        ),
        *culprits(1, "fork-ten", "patch-time"),
    ],
    blameless=30,
    variables={"BEANSTALK_DISPATCH_ON_FAILURE": "acknowledge"},
    must_log=["log lock left locked id=culprit-", "forked process left its task id=culprit-"],
    must_not=["limit-in-commit done", "begin done", "enter-atomic done", "swallows done"],
)  # fmt: skip
"""The culprits of many scenes, all at once."""


@pytest.fixture(scope="module")
def servers(moto: str) -> Iterator[Servers]:
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(moto, long_poll_second=0.1))
        started = Servers(
            sqs=proxy.url,
            postgres=stack.enter_context(postgres()),
            valkey=stack.enter_context(valkey()),
        )
        started.make_tables()
        yield started


@pytest.mark.parametrize(
    ("consumer", "driver"), [(endpoint, "psycopg"), (poller, "psycopg2")],
    ids=["endpoint", "poller"],
)  # fmt: skip
def test_no_culprit_touches_the_tasks_beside_it(
    servers: Servers, consumer: Consumer, driver: str, tmp_path: Path
) -> None:
    figures = MIXED.play("all", servers, tmp_path, consumer, driver)
    assert MIXED.is_well(figures), figures
    assert figures.culprits["panic failed"] == figures.culprits["swallows timed-out"] == 2


def test_what_ends_its_process_three_times_is_a_dead_letter(
    servers: Servers, tmp_path: Path
) -> None:
    scene = SCENES["exit"]
    figures = scene.play("exit", servers, tmp_path, endpoint, "psycopg", share=0.15)
    assert scene.is_well(figures), figures
    # The first time it ended the server's own process, which logs no outcome.
    assert figures.culprits == {"exit cut": 2}
