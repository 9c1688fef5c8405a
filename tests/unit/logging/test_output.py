from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from beanstalk_dispatch.logging import output
from beanstalk_dispatch.process import state


@contextmanager
def bare_logger() -> Iterator[logging.Logger]:
    """The package's logger, as Django's default LOGGING leaves it."""
    logger = logging.getLogger("beanstalk_dispatch")
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [], False
    logger.setLevel(logging.NOTSET)
    try:
        yield logger
    finally:
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])


def test_a_project_without_a_handler_gets_one_with_time_level_and_logger(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with bare_logger() as logger:
        assert output.show(verbosity=1, level=None)
        logging.getLogger("beanstalk_dispatch.task").info("task id=1")
        logging.getLogger("beanstalk_dispatch.task").debug("hidden")
        assert not output.show(verbosity=1, level=None)
        assert len(logger.handlers) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" INFO beanstalk_dispatch.task task id=1")
    assert line[:2] == "20"


@pytest.mark.parametrize(
    ("verbosity", "level", "expected"),
    [(0, None, "WARNING"), (1, None, "INFO"), (2, None, "DEBUG"), (3, "ERROR", "ERROR")],
)
def test_the_level_follows_the_options(verbosity: int, level: str | None, expected: str) -> None:
    with bare_logger() as logger:
        output.show(verbosity=verbosity, level=level)
        assert logging.getLevelName(logger.level) == expected


@pytest.mark.parametrize(
    ("verbosity", "level", "expected"),
    [(1, None, "CRITICAL"), (2, None, "DEBUG"), (1, "INFO", "INFO")],
)
def test_a_projects_own_handler_stays_and_its_level_changes_only_if_asked(
    verbosity: int, level: str | None, expected: str
) -> None:
    with bare_logger() as logger:
        logger.addHandler(logging.NullHandler())
        logger.setLevel("CRITICAL")
        assert not output.show(verbosity=verbosity, level=level)
        assert logging.getLevelName(logger.level) == expected
        assert len(logger.handlers) == 1


def test_another_process_can_have_the_same_output() -> None:
    state.reset()
    assert output.shown() is None
    with bare_logger() as logger:
        output.show(verbosity=1, level=None)
        output.show(verbosity=2, level="ERROR")
        sent = json.dumps(output.shown())
        logger.setLevel("DEBUG")
        output.show(**json.loads(sent))
        assert logging.getLevelName(logger.level) == "ERROR"
