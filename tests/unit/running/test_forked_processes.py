"""A process that a task forks ends with the task. It must not continue as its parent."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.safe_task import SafeTask
from tests.runs import attempt

LINE = (
    "forked process left its task id=1 function=f process_id={}: end such a process with os._exit()"
)


def returns() -> None:
    pass


def raises() -> None:
    raise ValueError("the child's own")


def exits_with_a_message() -> None:
    sys.exit("a message")


@pytest.mark.parametrize(
    ("leave", "code"),
    [
        (returns, 0),
        (raises, 1),
        (sys.exit, 0),
        (lambda: sys.exit(7), 7),
        (exits_with_a_message, 1),
    ],
)
def test_a_forked_process_that_leaves_its_task_ends(leave: Callable[[], None], code: int) -> None:
    reader, writer = os.pipe()
    handler = logging.StreamHandler(os.fdopen(writer, "w"))
    children: list[int] = []

    class Forks(SafeTask):
        def run(self) -> None:
            child = os.fork()
            if child == 0:
                leave()
            children.append(child)

        def on_completion(self, *args: Any, **kwargs: Any) -> None:
            children.append(os.getpid())

    logging.getLogger("beanstalk_dispatch").addHandler(handler)
    try:
        came = attempt(Forks())
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == code
    finally:
        logging.getLogger("beanstalk_dispatch").removeHandler(handler)
        handler.stream.close()
    with os.fdopen(reader) as log:
        first, *more = log.read().splitlines()
    assert came.outcome is Outcome.DONE
    assert children[1:] == [os.getpid()]  # hooks run in the parent alone
    assert first == LINE.format(children[0])
    assert bool(more) == (leave is raises)
    assert ("  ValueError: the child's own" in more) == (leave is raises)
