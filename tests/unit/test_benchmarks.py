"""What the benchmarks say of their figures: the gate's bounds, the page, and the simulation."""

from __future__ import annotations

import asyncio
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gate, page, scaling
from benchmarks.compare import Line, Quartiles, Target, duration
from benchmarks.sqs_server import Sqs


def test_the_stand_in_hands_nothing_to_a_connection_that_was_lost() -> None:
    async def lose_one_of_two() -> list[Any]:
        sqs = Sqs()
        sqs.control_use(["q"])
        answers: list[dict[str, Any]] = []
        lost: list[dict[str, Any]] = []
        poll = {"QueueUrl": "q", "WaitTimeSeconds": 20}
        sqs.answer("AmazonSQS.ReceiveMessage", poll, "h", lost.append)
        sqs.answer("AmazonSQS.ReceiveMessage", poll, "h", answers.append)
        sqs.queues["q"].forget(lost.append)
        send = {"QueueUrl": "q", "MessageBody": "b"}
        sqs.answer("AmazonSQS.SendMessage", send, "h", answers.append)
        assert lost == []
        return [each["Body"] for each in answers[0]["Messages"]]

    assert asyncio.run(lose_one_of_two()) == ["b"]


@pytest.mark.parametrize(("figure", "is_green"), [(5.0, True), (5.01, False)])
def test_the_gate_is_red_above_a_bound(
    figure: float, is_green: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    found = gate.Gate()
    found.check("requests", figure, gate.Bound(5, "the price"))
    assert found.is_green is is_green
    assert ("TOO HIGH" in capsys.readouterr().out) is not is_green


def test_a_gate_that_was_red_stays_red() -> None:
    found = gate.Gate()
    found.check("one", 2, gate.Bound(1, "a"))
    found.check("two", 1, gate.Bound(1, "b"))
    assert not found.is_green


@pytest.mark.parametrize(
    ("median", "target", "is_met"),
    [(1.0, Target(1.02), True), (1.03, Target(1.02), False),
     (0.95, Target(0.9, at_least=True), True), (0.8, Target(0.9, at_least=True), False)],
)  # fmt: skip
def test_a_target_is_compared_with_the_median(median: float, target: Target, is_met: bool) -> None:
    ratio = Quartiles(median - 0.5, median, median + 0.5)
    line = Line(row="r", side="s", unit="send", wall_ratio=ratio, target=target)
    assert line.is_met is is_met


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (0.000_45, "450 µs"), (0.000_000_5, "0.5 µs")],
)
def test_a_duration_has_the_unit_that_suits_it(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def report() -> dict[str, Any]:
    lines = [
        Line(row="one send", side="boto3 by hand", unit="send", cpu=0.0004,
             cpu_ratio=Quartiles(1, 1, 1)),
        Line(row="one send", side="schedule_function", unit="send", cpu=0.000_42,
             cpu_ratio=Quartiles(1.0, 1.05, 1.1), target=Target(1.02, "cpu")),
        Line(row="one send", side="Celery", unit="send", note="did not start: a | b"),
    ]  # fmt: skip
    return {
        "command": "python -m benchmarks --quick", "when": "2026-11-28", "seconds": 120,
        "machine": {"cpu": "a CPU", "cores": "2", "python": "3.13", "load": "1 1 1",
                    "load after": "2 1 1"},
        "versions": {"boto3 by hand": {"boto3": "1.44.8"}, "Celery": {"boto3": "1.44.9"}},
        "lines": [asdict(line) | {"is_met": line.is_met} for line in lines],
    }  # fmt: skip


def test_the_page_says_what_falls_short() -> None:
    written = page.tables(report())
    assert "0 of 1 targets were met" in written
    assert "- one send, schedule_function: 1.05 (1.00–1.10), target ≤ 1.02" in written  # noqa: RUF001
    assert "| schedule_function | 420 µs | 1.05 (1.00–1.10) | +20 µs |" in written  # noqa: RUF001
    assert "boto3 1.44.8 and 1.44.9" in written
    assert "did not start: a \\| b" in written


def test_the_page_keeps_what_stands_around_the_figures(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.write(report(), page=file, images=tmp_path)
    written = file.read_text()
    assert written.startswith(f"before\n{page.BEGIN}")
    assert written.endswith(f"{page.END}\nafter\n")
    assert "old" not in written
    (drawn,) = tmp_path.glob("*.svg")
    circles = ET.parse(drawn).getroot().findall(".//{http://www.w3.org/2000/svg}circle")
    assert [each.get("class") for each in circles] == ["hand", "ours"]


def test_a_process_is_as_fast_as_its_threads_or_its_cpu() -> None:
    machine = scaling.Machine(overhead=0.0, latency=0.001)
    waiting = scaling.Process(scaling.Task("w", 0.0, 0.1), machine, tasks=2_000).run()
    assert waiting.rate == pytest.approx(100, rel=0.05)  # ten threads, each ten times a second
    assert waiting.requests == pytest.approx(0.2, rel=0.2)  # ten in a receive, ten in a delete
    busy = scaling.Process(scaling.Task("c", 0.01, 0.0), machine, tasks=2_000).run()
    assert busy.rate == pytest.approx(100, rel=0.05)  # one CPU


def test_a_process_that_is_not_busy_keeps_up() -> None:
    task, machine = scaling.Task("t", 0.001, 0.05), scaling.Machine(overhead=0.0005, latency=0.01)
    found = scaling.Process(task, machine, tasks=1_000, rate=20).run()
    assert found.tasks == 1_000
    assert found.rate == pytest.approx(20, rel=0.1)
    assert 1 < found.requests <= 2  # messages arrive one by one


@pytest.mark.parametrize(
    ("requests", "dollars"),
    [(1e6, 0.0), (2e6, 0.4), (100e9, 40_000), (150e9, 55_000), (300e9, 94_000)],
)
def test_requests_are_priced_by_their_tiers(requests: float, dollars: float) -> None:
    assert scaling.request_dollars(requests) == pytest.approx(dollars, rel=1e-4)


def ask(sqs: Sqs, operation: str, **asked: Any) -> dict[str, Any]:
    answers: list[dict[str, Any]] = []
    sqs.answer(operation, {"QueueName": "q"} | asked, "127.0.0.1:1", answers.append)
    return answers[0]


def test_the_stand_in_hands_out_what_was_sent_while_it_was_held() -> None:
    sqs = Sqs()
    ask(sqs, "AmazonSQS.SendMessage", MessageBody="not kept")
    sqs.control_hold(["q"])
    ask(sqs, "AmazonSQS.SendMessageBatch", Entries=[{"Id": "0", "MessageBody": "kept"}])
    assert ask(sqs, "AmazonSQS.ReceiveMessage") == {}
    sqs.control_release(["q"])
    (message,) = ask(sqs, "AmazonSQS.ReceiveMessage")["Messages"]
    assert message["Body"] == "kept"
    entries = [{"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}]
    ask(sqs, "AmazonSQS.DeleteMessageBatch", Entries=entries)
    state = sqs.control_state(["q"])
    assert (state["visible"], state["in_flight"], state["deleted"]) == (0, 0, 1)
    assert sqs.control_counts()["requests"]["ReceiveMessage"] == 2
    assert sqs.control_counts()["requests"] == {}
