"""The promises of docs/stability.md, held to the code through its public doors."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any, Final

import pytest
from django.core.management import get_commands
from django.test import Client
from django.urls import reverse

from tests.conftest import Environment

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "stability.md").read_text()
KEY: Final = "a-key-of-the-release-before"
RAN: Final[list[Any]] = []

# Bodies as they were written by 1.0.0, and by 0.1.5: send_welcome(7, copies=2) on shop-mail.
PLAIN: Final = (
    '{"v":1,"id":"7d4f1f4e-0c5c-4b0e-9f6a-3f5b7f3a1c11","function":"send_welcome","args":[7],'
    '"kwargs":{"copies":2},"sent_at":1764000000.0,"headers":{"baggage":"a=b"}}'
)
SIGNED: Final = f"{PLAIN}:7Q0dEHwORuq4NpBTykXLEfJZlahL4PGjV0l1jdmYeIg"
OF_0_1: Final = "eyJmdW5jdGlvbiI6InNlbmRfd2VsY29tZSIsImFyZ3MiOls3XSwia3dhcmdzIjp7ImNvcGllcyI6Mn19"
FROM_LATER: Final = PLAIN.replace('"v":1', '"v":1,"something":"new"')


def send_welcome(user_id: int, *, copies: int) -> None:
    RAN.append((user_id, copies))
    if user_id < 0:
        raise ValueError("nobody")


def deliver(body: str) -> int:
    """POST a body as the daemon does. Return the status."""
    response = Client().post(
        reverse("beanstalk_dispatcher"), body, "application/json",
        headers={"X-Aws-Sqsd-Queue": "shop-mail", "X-Aws-Sqsd-Msgid": "1"},
    )  # fmt: skip
    return response.status_code


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose first column has this heading, code marks removed."""
    table = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)[0]
    return [
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()
    ]


@pytest.fixture(autouse=True)
def worker(env: Environment) -> None:
    RAN.clear()
    env(WORKER=True, DISPATCH_TABLE=f"send_welcome={__name__}.send_welcome")


@pytest.mark.parametrize("body", [PLAIN, OF_0_1, FROM_LATER], ids=["1.0.0", "0.1.5", "later"])
def test_messages_of_other_releases_are_read(body: str) -> None:
    assert deliver(body) == 200
    assert RAN == [(7, 2)]


def test_signed_messages_of_the_first_release_are_read(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS=KEY)
    assert deliver(SIGNED) == 200
    assert RAN == [(7, 2)]
    assert deliver(SIGNED.replace("[7]", "[8]")) == 403


def test_a_format_that_is_not_known_is_malformed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert deliver(PLAIN.replace('"v":1', '"v":2')) == 400
    assert "outcome=malformed" in caplog.text
    assert RAN == []


def test_the_line_of_a_task_has_the_promised_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    deliver(PLAIN)
    deliver(PLAIN.replace("[7]", "[-7]").replace("1c11", "1c12"))
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.name == "beanstalk_dispatch.task" and record.getMessage().startswith("task ")
    ]
    promise = PAGE.partition("its fields are")[2].partition("if the task")[0]
    promised = re.findall(r"`(\w+)`", promise)
    fields = [re.findall(r" (\w+)=", line) for line in lines]
    assert fields == [promised[:-1], promised]
    assert promised[-1] == "reason"


def test_every_command_is_promised() -> None:
    ours = {name for name, app in get_commands().items() if app.startswith("beanstalk_dispatch")}
    assert {row[0] for row in rows("Command")} == ours


def test_the_supported_versions_are_those_that_are_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nox")
    monkeypatch.chdir(ROOT)
    pairs = [tuple(each.args) for each in runpy.run_path("noxfile.py")["PAIRS"]]
    table = rows("Python")
    assert [
        (python, django) for python, djangos, _ in table for django in djangos.split(", ")
    ] == pairs
    assert [branch for *_, branch in table] == [
        f"Python {python} on Amazon Linux 2023" for python, *_ in table
    ]
