from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from botocore.exceptions import ReadTimeoutError

from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.circuit import Circuit, CircuitOpen
from beanstalk_dispatch.sqs.opening import open_queue
from tests.batches import Entry
from tests.conftest import Environment
from tests.proxy import Proxy, error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the circuit sees. A test changes it."""
    now = [100.0]
    monkeypatch.setattr("beanstalk_dispatch.process.clock.monotonic", lambda: now[0])
    return now


def time_out() -> None:
    raise ReadTimeoutError(endpoint_url="http://127.0.0.1:9")


def refuse() -> None:
    raise KeyError


def test_after_a_timeout_requests_fail_at_once(clock: list[float]) -> None:
    circuit = Circuit(longest_request=10)
    with pytest.raises(ReadTimeoutError):
        circuit.call(time_out)
    clock[0] += 1.5
    with pytest.raises(CircuitOpen) as caught:
        circuit.call(lambda: "an answer")
    assert str(caught.value) == (
        "not tried, because SQS did not answer in time; the next try is in 3.5 s"
    )


def test_after_the_pause_one_request_tries_again_and_others_wait_for_it(
    clock: list[float],
) -> None:
    circuit = Circuit(longest_request=10)
    with pytest.raises(ReadTimeoutError):
        circuit.call(time_out)
    clock[0] += 5

    def try_again() -> str:
        with pytest.raises(CircuitOpen, match=r"the next try is in 10\.0 s"):
            circuit.call(lambda: "another request")
        return "an answer"

    assert circuit.call(try_again) == "an answer"
    assert circuit.call(lambda: "closed again") == "closed again"


def test_a_refusal_is_an_answer(clock: list[float]) -> None:
    circuit = Circuit(longest_request=10)
    for _ in range(2):
        with pytest.raises(KeyError):
            circuit.call(refuse)
    with pytest.raises(ReadTimeoutError):
        circuit.call(time_out)
    clock[0] += 5
    with pytest.raises(KeyError):
        circuit.call(refuse)
    assert circuit.call(lambda: "closed again") == "closed again"


@pytest.fixture
def hung_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_server_that_hangs_holds_each_thread_no_longer_than_the_timeout(
    sqs_env: Environment, hung_server: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={hung_server}/1/q", DISPATCH_SEND_TIMEOUT="1s",
            DISPATCH_SQS_ENDPOINT_URL=None)  # fmt: skip
    queue = open_queue("jobs")
    started = time.monotonic()
    with pytest.raises(SendError) as caught:
        queue.send("{}", {})
    assert re.fullmatch(
        r"SendMessage on q: SendTimeout: no answer came in time, which was 0\.\d s; another "
        "attempt could end after BEANSTALK_DISPATCH_SEND_TIMEOUT, which is 1 s", str(caught.value),
    )  # fmt: skip
    assert time.monotonic() - started < 2
    errors: list[str] = []

    def send() -> None:
        sent = queue.send_batch([Entry(body="{}", send_parameters={})])
        errors.append(sent.unsent[0])

    started = time.monotonic()
    threads = [threading.Thread(target=send) for _ in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 1
    assert len(errors) == 15
    for each in errors:
        assert each.startswith("SendMessageBatch on q: CircuitOpen: not tried, because SQS did")


@pytest.mark.slow
def test_looking_up_a_queue_fails_at_once_too(sqs_env: Environment, hung_server: str) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=hung_server, DISPATCH_SEND_TIMEOUT="1s")
    with pytest.raises(SendError, match="GetQueueUrl on .*: SendTimeout: no answer came in time"):
        open_queue("jobs")
    with pytest.raises(SendError, match="GetQueueUrl on .*: CircuitOpen: not tried"):
        open_queue("jobs")


def test_what_sqs_refuses_at_once_is_tried_again(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    answers = [error(503, "ServiceUnavailable")]
    proxy.spoil = lambda operation, request: answers.pop() if answers else None
    assert queue.send("{}", {})
    assert proxy.counts["SendMessage"] == 2
