from __future__ import annotations

import ast
import io
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.logging.log_lines import (
    LongTraceback,
    duration,
    quoted,
    quoted_error,
    shortened,
    table,
    to_log,
    traceback_of,
)
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.observers import Observer, observed
from beanstalk_dispatch.running import dead_letters
from beanstalk_dispatch.running.ending import sent_again
from beanstalk_dispatch.running.leases.lease import Lease
from beanstalk_dispatch.running.refusing import failed_outside
from tests.conftest import Environment
from tests.runs import deliver, run_of

EVIL = "x' outcome=done id=1\r\nERROR a line\x1b[0m\u2028"
NAME = "x outcome=done"
"""What a message may have as its function or id: all of it is printable."""


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no string")


def test_ctrl_c_is_not_taken_for_an_error_of_what_is_logged() -> None:
    class Interrupted:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quoted(Interrupted())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("record", "record"),
        (None, "None"),
        (5, "5"),
        ("café", "café"),
        ("a=b", "a=b"),
        ("", ""),
        ("a b", "'a b'"),
        ("'a", '"\'a"'),
        ("a\nb", r"'a\nb'"),
        ("a\u2028b", r"'a\u2028b'"),
        ("\udcff", r"'\udcff'"),
        (Unprintable(), "Unprintable"),
    ],
)
def test_a_value_is_quoted_only_where_it_must_be(value: object, expected: str) -> None:
    assert quoted(value) == expected


def test_a_long_value_is_shortened_in_the_middle() -> None:
    assert shortened("12345678", 8) == "12345678"
    assert shortened("1234567890", 6) == "123 [4 characters] 890"
    long = quoted_error("start " + "x" * 5_000_000 + " end")
    assert len(long) < 4_100
    assert long.startswith("start xxx")
    assert long.endswith("xxx end")
    assert " [4,996,010 characters] " in long


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as exc:
        return exc


def test_an_exception_with_a_short_message_is_logged_as_it_is() -> None:
    short = raised(ValueError("short"))
    short.__cause__ = short.__context__ = short
    assert to_log(short) is short
    assert to_log(ExceptionGroup("group", [short])).args[0] == "group"


def chain_of(length: int) -> BaseException:
    error: BaseException = raised(ValueError("the first"))
    for number in range(length - 2):
        following = raised(KeyError(number))
        following.__context__ = error
        error = following
    last = raised(RuntimeError("the last"))
    last.__context__ = error
    return last


def test_a_chain_of_exceptions_does_not_fill_the_log() -> None:
    """3,000 of them would be 0.9 MB at each receive."""
    short = chain_of(50)
    assert to_log(short) is short
    logged = to_log(chain_of(3_000))
    assert isinstance(logged, LongTraceback)
    assert len(str(logged)) < 20_100
    assert "ValueError: the first" in str(logged)
    assert str(logged).endswith("RuntimeError: the last\n")


@pytest.mark.parametrize("where", ["itself", "cause", "group"])
def test_an_exception_with_a_long_message_is_logged_with_both_of_its_ends(where: str) -> None:
    long = raised(ValueError("the start" + "x" * 5_000_000 + "the end"))
    error = long
    if where == "cause":
        error = raised(KeyError("key"))
        error.__cause__ = long
    elif where == "group":
        error = ExceptionGroup("group", [Exception(), long])
    logged = to_log(error)
    assert isinstance(logged, LongTraceback)
    assert "Traceback (most recent call last)" in str(logged)
    assert "in raised" in str(logged)
    assert "ValueError: the startxxx" in str(logged)
    assert len(str(logged)) < 20_100
    assert str(logged) == traceback_of(error)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("SQS is away", "SQS is away"),
        (ValueError("a=b"), "a=b"),
        ("away outcome=done", "'away outcome=done'"),
        ("away\toutcome", r"'away\toutcome'"),
        ("one\ntwo", r"'one\ntwo'"),
        ("", ""),
    ],
)
def test_an_error_is_quoted_only_where_it_must_be(value: object, expected: str) -> None:
    assert quoted_error(value) == expected


def fields(line: str) -> dict[str, str]:
    """A line's fields, as a log processor reads them; fails where a field is given twice."""
    assert line.isprintable()
    start = re.search(r"\w+=", line)
    assert start
    found: dict[str, str] = {}
    rest = line[start.start() :]
    while rest:
        name, _, rest = rest.partition("=")
        if match := re.match(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", rest):
            value, rest = ast.literal_eval(match[0]), rest[match.end() :]
        else:
            end = re.search(r" (?=\w+=)|$", rest)
            assert end
            value, rest = rest[: end.start()], rest[end.start() :]
        assert name.strip() not in found
        found[name.strip().rpartition(" ")[2]] = value
        rest = rest.lstrip()
    return found


class Kept(logging.Handler):
    """Keeps the lines, without tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines of a test. When it ends, each field is read from them."""
    kept = Kept()
    monkeypatch.setattr(logging.getLogger("beanstalk_dispatch"), "handlers", [kept])
    yield kept.lines
    assert kept.lines
    for line in kept.lines:
        found = fields(line)
        assert found.get("outcome") != "done"
        assert found.get("id") != "1"


class Formatted(logging.Handler):
    """Keeps whole records, with their tracebacks, as a file of the log has them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(logging.Formatter("%(levelname)s %(message)s").format(record))


FORGED = "one\n2026-12-01 INFO task id=1 outcome=done\r\x85task\u2028task\x1b[2J\u202eksat"


@pytest.fixture
def whole_records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The records of a test. When it ends, no string of a stranger in them looks like a line."""
    kept = Formatted()
    for name in ("beanstalk_dispatch", "django.tasks"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [kept])
    yield kept.records
    assert any("outcome=done" in record for record in kept.records)
    for record in kept.records:
        first, *others = record.split("\n")
        assert first.isprintable()
        assert all(line.isprintable() and line.startswith("  ") for line in others)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("fail", {"args": [FORGED]}),
        ("fail", {"kwargs": {FORGED: 1}}),
        ("hooked", {"args": [FORGED]}),
        ("fail", {"args": [FORGED], "options": {"max_retries": 2}}),
        ("fail", {"args": [FORGED + "x" * 50_000]}),
    ],
)
def test_what_a_message_contains_is_no_line(
    worker: Environment, whole_records: list[str], function: str, arguments: dict[str, Any]
) -> None:
    body = Message(function=function, **arguments).encode(queue="q")
    deliver(body, Delivery(queue="q"))
    assert any("Traceback (most recent call last):" in record for record in whole_records)


def test_what_an_error_says_is_no_line(whole_records: list[str]) -> None:
    logging.getLogger("beanstalk_dispatch").error("wrong error=%s ms=%d", FORGED, 1)
    logging.getLogger("beanstalk_dispatch").error(f"wrong {FORGED}")  # noqa: G004
    logging.getLogger("beanstalk_dispatch").error("wrong", exc_info=ValueError(FORGED))
    logging.getLogger("django.tasks").error("wrong %s", "one\n", exc_info=ValueError(FORGED))
    assert r"  task id" not in whole_records[0]
    assert whole_records[0].split("\n")[1].startswith("  2026-12-01 INFO task id=1 outcome=done")


@pytest.fixture
def worker(env: Environment) -> Environment:
    env(WORKER=True, DISPATCH_TABLE="fail=tests.jobs.fail hooked=tests.jobs.FailsInItsHook")
    return env


@pytest.mark.parametrize("function", ["fail", NAME])
@pytest.mark.parametrize("error", [EVIL, NAME])
def test_what_a_message_contains_is_one_field(
    worker: Environment, lines: list[str], function: str, error: str
) -> None:
    body = Message(function=function, id=NAME, args=[error], kwargs={"n": error}).encode(queue="q")
    deliver(body, Delivery(queue=NAME, message_id=NAME, task_name=None))


@pytest.mark.parametrize(
    "content", [b"{", b'{"v": 9}', b'{"function":"f\\n","args":[],"kwargs":{}}']
)
def test_what_is_refused_is_one_field(
    worker: Environment, lines: list[str], content: bytes
) -> None:
    headers = {"X-Aws-Sqsd-Msgid": NAME, "X-Aws-Sqsd-Queue": NAME, "X-Aws-Sqsd-Taskname": NAME}
    path = "/beanstalk_dispatch/dispatcher"
    Client().post(path, content, content_type="application/json", headers=headers)
    Client().post(path, b"", content_type="application/json", headers=headers)
    Client().post(path, content, content_type="application/json", headers={"X-Real-IP": NAME})


def test_an_error_of_the_project_is_one_field(
    worker: Environment, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails:
        def resend(self, *args: Any) -> None:
            raise SendError(EVIL)

    run = run_of(queue="q", message_id=NAME)
    monkeypatch.setattr(run, "consumer", Fails())
    sent_again(run, Message(function=NAME, id=NAME), 1, Outcome.RETRY)
    failed_outside(run, ValueError(EVIL))


def test_what_watches_a_task_cannot_write_fields(lines: list[str]) -> None:
    class Fails(Observer):
        def delivering(self, delivery: object) -> Any:
            raise ValueError(EVIL)

    with observed([Fails()], "delivering", None):
        pass


def test_a_dead_letter_and_a_lease_have_one_id(
    worker: Environment, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise SendError(EVIL)

    monkeypatch.setattr(dead_letters, "open_queue", fail)
    dead_letters.send(run_of(message_id=NAME), alias="dead", outcome="x")
    monkeypatch.setattr(
        "beanstalk_dispatch.running.leases.held_leases.time.sleep", lambda seconds: None
    )
    lease = Lease("nowhere", Message(function="f", id=NAME), queue="q", time_limit=1)
    lease.handed_on()


def test_a_record_keeps_its_template_by_which_sentry_groups(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("beanstalk_dispatch").error("wrong ms=%d error=%s", 1, "one\ntwo")
    (record,) = caplog.records
    assert (record.msg, record.args) == ("wrong ms=%d error=%s", (1, "one\n  two"))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_columns_of_a_table_are_as_wide_as_their_cells() -> None:
    assert list(table(["A", "B"], [["long\n", "1"], ["x", ""]])) == [
        "A       B", r"long\n  1", "x",
    ]  # fmt: skip


def test_a_table_is_not_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Terminal())
    monkeypatch.setenv("COLUMNS", "5")
    rows = [["123456789"]]
    assert list(table(["NAME"], rows)) == ["NAME", "12345"]
    assert list(table(["NAME"], rows, is_cut=False)) == ["NAME", "123456789"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (3700, "1h 1m"), (3605, "1h 5s"),
     (345_600, "4d"), (90_061, "1d 1h")],
)  # fmt: skip
def test_a_duration_has_its_two_largest_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
