from __future__ import annotations

import io
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pythonjsonlogger.json import JsonFormatter

from beanstalk_dispatch.logging import loggers
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from tests.conftest import Environment
from tests.runs import deliver

REPORT_UNWRITTEN = loggers.report_unwritten


class Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("cannot write")


def raise_in_factory(*values: Any, **options: Any) -> logging.LogRecord:
    raise ValueError("cannot make")


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What stderr says of lines that could not be written."""
    stderr = io.StringIO()
    monkeypatch.setattr(loggers, "report_unwritten", REPORT_UNWRITTEN)
    monkeypatch.setattr(sys, "__stderr__", stderr)
    return stderr


def test_a_handler_that_raises_costs_no_task(
    env: Environment, unwritten: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("beanstalk_dispatch"), "handlers", [Raises()])
    env(DISPATCH_TABLE="record=tests.jobs.record fail=tests.jobs.fail", WORKER=True)
    for name, outcome in (("record", Outcome.DONE), ("fail", Outcome.FAILED)):
        body = Message(function=name).encode(queue="q")
        assert deliver(body, Delivery(queue="q")).outcome is outcome
    assert unwritten.getvalue().strip() == "log line not written error=ValueError: cannot write"


def test_a_record_factory_that_raises_costs_only_what_it_adds(
    unwritten: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(raise_in_factory)
    try:
        logging.getLogger("beanstalk_dispatch.task").error("a %s", "line")
    finally:
        logging.setLogRecordFactory(before)
    assert [record.getMessage() for record in caplog.records] == ["a line"]
    assert caplog.records[0].filename == "test_loggers.py"
    assert "cannot make" in unwritten.getvalue()


def test_a_filter_of_the_project_decides_on_what_a_line_has() -> None:
    """One in LOGGING is there before ours. A field or a traceback that it removes stays removed."""

    def redact(record: logging.LogRecord) -> bool:
        record.args, record.exc_info = ("***",), None
        return True

    logger, stream = logging.Logger("shop"), io.StringIO()  # noqa: LOG001 - of this test alone
    logger.addFilter(redact)
    logger.addHandler(logging.StreamHandler(stream))
    logger.handlers[0].setFormatter(JsonFormatter("%(message)s"))
    loggers._protect_logger(logger)
    logger.error("failed error=%s", "secret", exc_info=ValueError("secret"))
    assert json.loads(stream.getvalue()) == {"message": "failed error=***", "error": "***"}


def test_a_closed_stderr_is_not_written_to(unwritten: io.StringIO) -> None:
    unwritten.close()
    REPORT_UNWRITTEN(ValueError())
    REPORT_UNWRITTEN(ValueError())


def test_every_logger_of_the_package_is_protected() -> None:
    root = Path(loggers.__file__).parents[1]
    sources = [path.read_text() for path in root.rglob("*.py")]
    used = {each for source in sources for each in re.findall(r'getLogger\("([a-z_.]+)"\)', source)}
    assert used == set(loggers.LOGGERS)
    loggers.protect_loggers()  # again, which changes nothing
    assert all("handle" in vars(logging.getLogger(name)) for name in used)
