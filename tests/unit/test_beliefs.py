"""The beliefs of SQS: the page has them all, and a run ends with its budget and deletes its queues.

``make beliefs`` asks the servers.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.exceptions import ClientError

from benchmarks.beliefs import __main__ as beliefs
from benchmarks.beliefs.server import BELIEFS, Belief, Differs, Server, answer_to, expect, refused


@pytest.fixture
def server(moto: str) -> Server:
    return Server(moto, is_local=True)


def believing(ask: Any) -> Belief:
    return Belief(text="text", page="page", ask=ask)


def test_the_page_has_a_row_for_each_belief() -> None:
    rows = re.findall(r"^\| \[(.+)\]\((https://docs\.aws\.amazon\.com/\S+)\) \|",
                      beliefs.PAGE.read_text(), re.MULTILINE)  # fmt: skip
    assert rows == [(each.text, each.page) for each in BELIEFS]
    assert len(set(rows)) == len(rows)


def test_the_table_says_what_a_server_does_instead() -> None:
    agreed = dict.fromkeys(BELIEFS, "")
    table = beliefs.table({"one": agreed, "two": agreed | {BELIEFS[0]: "it is taken"}})
    first, second = table.splitlines()[2:4]
    assert first.endswith(" | yes | it is taken |")
    assert second.endswith(" | yes | yes |")
    assert beliefs.with_tables(f"# Title\n\n{table}", table) == f"# Title\n\n{table}"


def test_a_server_that_does_it_is_told_from_one_that_does_not(server: Server) -> None:
    def take(code: str) -> Belief:
        def ask(server: Server) -> None:
            with refused(code):
                server.client.get_queue_url(QueueName="none")

        return believing(ask)

    assert answer_to(take("NonExistentQueue"), server) == ""
    assert answer_to(take("Other"), server) == "the code is NonExistentQueue"
    assert answer_to(believing(lambda server: expect(False, "it is red")), server) == "it is red"
    with pytest.raises(Differs, match="it is taken"), refused():
        server.queue()
    assert server.delete_queues() == []


def test_what_a_server_does_not_have_differs(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(code: str) -> Belief:
        def ask(server: Server) -> None:
            raise ClientError({"Error": {"Code": code}}, "PurgeQueue")

        return believing(ask)

    assert answer_to(fail("InvalidAction"), server) == "it has no PurgeQueue"
    assert answer_to(fail("com.amazonaws.sqs#Odd"), server) == "PurgeQueue: Odd"
    assert answer_to(believing(lambda server: 1 / 0), server) == "no answer: ZeroDivisionError"
    assert "division" in capsys.readouterr().err


def test_a_run_ends_with_its_budget_and_deletes_its_queues(server: Server) -> None:
    queue = server.queue()
    server.budget._requests = server.budget.used
    assert answer_to(believing(lambda server: queue.send()), server) == "not asked: over budget"
    assert server.delete_queues() == []
    server.budget._requests += 10
    with refused("NonExistentQueue"):
        queue.send()


def test_an_endpoint_is_told_first_what_will_happen(
    moto: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "from-the-environment")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    (first, second) = BELIEFS[:2]
    monkeypatch.setattr(
        beliefs, "BELIEFS", [first, Belief(text="false", page="the page", ask=fail)]
    )
    assert beliefs.ask_endpoint(moto) == 1
    lines = capsys.readouterr().out.splitlines()
    assert re.match(rf"Asking {moto} in eu-north-1\. The queues are named beliefs-\w+-… ", lines[0])
    assert lines[1:4] == [f"yes: {first.text}", "NO (it is red): false", "    the page"]
    assert re.match(r"1 of 2, with \d requests", lines[4])
    monkeypatch.setattr(beliefs, "BELIEFS", [second])
    assert beliefs.ask_endpoint(moto) == 0


def fail(server: Server) -> None:
    raise Differs("it is red")


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://vpce-1-a.sqs.us-gov-east-1.vpce.amazonaws.com", "us-gov-east-1"),
        ("http://127.0.0.1:4566", "eu-north-1"),
    ],
)
def test_the_region_is_that_of_the_endpoint(
    endpoint: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert Server(endpoint).client.meta.region_name == region
