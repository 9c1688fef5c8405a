"""The fields of log lines, as a formatter of JSON that knows nothing of them writes them."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pythonjsonlogger.json import JsonFormatter

import beanstalk_dispatch
from beanstalk_dispatch.logging.fields import names_in
from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from tests.conftest import Environment
from tests.runs import deliver
from tests.services import ROOT

LOG = (ROOT / "docs" / "log.md").read_text()
SECRET = "4111 1111 1111 1111"


class Lines:
    """The lines of the package's loggers, as JSON."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s"))

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def lines(env: Environment, caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    env(WORKER=True, DISPATCH_TABLE="record=tests.jobs.record fail=tests.jobs.fail")
    caplog.set_level("INFO", "beanstalk_dispatch")
    made = Lines()
    logger = logging.getLogger("beanstalk_dispatch")
    logger.addHandler(made.handler)
    yield made
    logger.removeHandler(made.handler)


def run(function: str, *args: Any) -> None:
    body = Message(function=function, args=args, id="9b6d9055", attempt=2).encode(queue="mail")
    deliver(body, Delivery(queue="mail", message_id="sqs-1", receive_count=3))


def fields_of_page() -> set[str]:
    """The fields of the line of each delivery, by their table in the docs."""
    return set(re.findall(r"^\| `(\w+)` \|", LOG.partition("## Start")[0], re.MULTILINE))


def test_the_line_of_a_delivery_has_its_fields_and_no_argument(lines: Lines) -> None:
    run("record", SECRET)
    (line,) = lines.read()
    milliseconds = line.pop("ms")
    assert isinstance(milliseconds, float)
    assert line.pop("message").startswith("task id=9b6d9055 function=record outcome=done ")
    assert line == {
        "levelname": "INFO",
        "name": "beanstalk_dispatch.task",
        "task_id": "9b6d9055",
        "function": "record",
        "outcome": "done",
        "receive_count": 3,
        "queue": "mail",
        "message_id": "sqs-1",
        "attempt": 2,
        "reason": "",
    }
    assert fields_of_page() == {*line, "ms"} - {"levelname", "name"}


def test_a_failure_has_its_fields(lines: Lines) -> None:
    run("fail", "the card was declined")
    failed, delivery = lines.read()
    assert (failed["task_id"], failed["function"]) == ("9b6d9055", "fail")
    assert failed["error"] == "the card was declined"
    assert (delivery["outcome"], delivery["reason"]) == ("failed", "the task failed")


def test_what_cannot_be_read_has_no_attempt(lines: Lines) -> None:
    deliver("{", Delivery(queue="mail", message_id="sqs-1"))
    (line,) = lines.read()
    assert (line["task_id"], line["attempt"]) == ("sqs-1", None)


@pytest.mark.parametrize(
    "value", ["send welcome", "it's", "'", '"', "a\nb", "'not python", "plain"]
)
def test_a_value_in_quotes_is_written_without_them(lines: Lines, value: str) -> None:
    logger = logging.getLogger("beanstalk_dispatch.task")
    logger.error("task function=%s error=%s", quoted(value), "'not python")
    (line,) = lines.read()
    assert (line["function"], line["error"]) == (value, "'not python")


def test_lines_without_fields_stay(lines: Lines) -> None:
    logger = logging.getLogger("beanstalk_dispatch.task")
    logger.error(ValueError("no template"))
    logger.error("%(id)s", {"id": "in a dictionary"})
    assert [line["message"] for line in lines.read()] == ["no template", "in a dictionary"]


def test_the_id_of_sqs_has_another_name() -> None:
    assert names_in("post id=%s receive_count=%d") == ("message_id", "receive_count")
    assert names_in("task id=%s ms=%.0f%s") == ("task_id", "ms", "")


def test_no_field_of_any_line_hides_one_of_a_record() -> None:
    package = Path(beanstalk_dispatch.__file__).parent
    sources = "\n".join(each.read_text() for each in package.rglob("*.py"))
    names = {*names_in(sources)}
    assert {"task_id", "queue", "outcome"} <= names
    own = {*logging.makeLogRecord({}).__dict__, "message", "asctime"}
    assert names & own == set()


def test_the_queries_of_the_page_name_fields_of_the_line() -> None:
    queries = re.findall(r"^- [A-Z].+:\n  `(filter .+)`$", LOG, re.MULTILINE)
    assert len(queries) == 3
    known = fields_of_page() | {"message", "timestamp"}
    for query in queries:
        made = set(re.findall(r" as (\w+)", query))
        plain = re.sub(r'"[^"]*"', "", query)
        words = set(re.findall(r"[a-z]\w*", plain)) - made
        commands = {"filter", "stats", "sort", "fields", "by", "as", "desc", "in", "ispresent",
                    "count", "avg", "pct"}  # fmt: skip
        assert words - commands <= known
