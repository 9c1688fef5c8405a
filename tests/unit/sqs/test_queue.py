from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import InvalidCall, MessageTooLarge, SendError, UnknownQueue
from beanstalk_dispatch.sqs.errors import failed_on_missing_queue
from beanstalk_dispatch.sqs.opening import _open_queues, open_queue, open_queue_by_own_name
from beanstalk_dispatch.sqs.parameters import check_size, send_parameters
from beanstalk_dispatch.sqs.queue import BATCH_ATTEMPTS, Entry, Queue, Received, Refused, _chunks
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error

ACCOUNT = "123456789012"


def receive(queue: Queue, visibility: int = 30) -> list[Received]:
    return queue.receive(count=10, wait=0, visibility=visibility)


def test_a_missing_queue_is_created_with_a_dead_letter_queue(
    sqs_env: Environment, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    queue = open_queue("jobs")
    attributes: Any = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])
    assert attributes["Attributes"]["VisibilityTimeout"] == "300"
    assert f"{queue_name}-dead-letter" in attributes["Attributes"]["RedrivePolicy"]
    assert f"created queue={queue_name}" in caplog.text


def test_a_missing_fifo_queue_is_created_as_one(sqs_env: Environment, queue_name: str) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name}.fifo")
    queue = open_queue("jobs")
    attributes: Any = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])
    assert attributes["Attributes"]["FifoQueue"] == "true"
    assert f"{queue_name}-dead-letter.fifo" in attributes["Attributes"]["RedrivePolicy"]


def test_a_missing_queue_is_an_error_that_says_where(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_CREATE_QUEUES=None)
    with pytest.raises(UnknownQueue, match=r"eu-west-1.*BEANSTALK_DISPATCH_CREATE_QUEUES"):
        open_queue("jobs")


def test_an_unknown_alias_is_an_error_that_lists_them(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES="mail=a work=b")
    with pytest.raises(UnknownQueue, match=r"'jobs' is not in .*; known: mail, work"):
        open_queue("jobs")


def test_without_aliases_a_name_is_taken_as_it_is(sqs_env: Environment, queue_name: str) -> None:
    sqs_env(DISPATCH_QUEUES=None)
    assert open_queue(queue_name).name == queue_name
    with pytest.raises(UnknownQueue, match="not a queue name"):
        open_queue("no queue name")


def test_a_queue_is_opened_once_and_again_with_another_configuration(sqs_env: Environment) -> None:
    queue = open_queue("jobs")
    assert open_queue("jobs") is queue
    sqs_env(DISPATCH_TASK_TIMEOUT="3s")
    assert open_queue("jobs") is not queue


def test_a_url_and_an_arn_are_never_looked_up(sqs_env: Environment, proxy: Proxy) -> None:
    url = f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/q"
    sqs_env(
        DISPATCH_QUEUES=f"url={url} arn=arn:aws:sqs:eu-west-1:{ACCOUNT}:q",
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
    )
    assert open_queue("url").url == open_queue("arn").url == url
    assert proxy.counts.total() == 0


def test_the_region_comes_from_the_address(env: Environment) -> None:
    env(
        DISPATCH_SQS_REGION="eu-west-1",
        DISPATCH_QUEUES=f"here=https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/a "
        f"there=arn:aws:sqs:us-west-2:{ACCOUNT}:b near=http://127.0.0.1:9/1/c",
        DISPATCH_SQS_KEY="k",
        DISPATCH_SQS_SECRET="s",
    )
    metas = {name: open_queue(name).client.meta for name in ("here", "there", "near")}
    assert {n: (m.region_name, m.endpoint_url) for n, m in metas.items()} == {
        "here": ("eu-west-1", "https://sqs.eu-west-1.amazonaws.com"),
        "there": ("us-west-2", "https://sqs.us-west-2.amazonaws.com"),
        "near": ("eu-west-1", "http://127.0.0.1:9"),
    }


@pytest.mark.parametrize(
    ("variables", "region"),
    [({}, "us-east-1"), ({"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
     ({"AWS_REGION": "eu-west-3"}, "eu-west-3")],
)  # fmt: skip
def test_else_the_region_comes_from_the_environment(
    env: Environment, variables: dict[str, str], region: str
) -> None:
    env(DISPATCH_QUEUES="q=http://127.0.0.1:9/1/q", AWS_ACCESS_KEY_ID="k",
        AWS_SECRET_ACCESS_KEY="s", **variables)  # fmt: skip
    assert open_queue("q").client.meta.region_name == region


def test_threads_share_one_client(sqs_env: Environment) -> None:
    queues: list[Queue] = []
    gate = threading.Barrier(8)

    def use() -> None:
        gate.wait()
        queues.append(open_queue("jobs"))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(queue.client) for queue in queues}) == 1
    assert len({id(queue) for queue in queues}) == 1


def test_a_forked_child_makes_its_own_client(sqs_env: Environment) -> None:
    queue = open_queue("jobs")
    with _open_queues.lock:  # as if another thread held it at the fork
        child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child
        try:
            mine = open_queue("jobs")
            mine.send("{}", {})
            os._exit(0 if mine.client is not queue.client else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(receive(queue)) == 1


def test_the_user_agent_is_botocores_own(sqs_env: Environment) -> None:
    config: Any = open_queue("jobs").client.meta.config
    assert config.user_agent.startswith("Boto3/")
    assert "lang/python" in config.user_agent


# --- options and limits ---


def test_options_name_what_sqs_takes(sqs_env: Environment) -> None:
    assert send_parameters(open_queue("jobs").address, delay=900, group_id="tenant-1") == {
        "DelaySeconds": 900,
        "MessageGroupId": "tenant-1",
    }


def test_a_fifo_queue_gets_a_deduplication_id(env: Environment) -> None:
    env(DISPATCH_QUEUES="q=http://127.0.0.1:9/1/q.fifo")
    queue = open_queue("q")
    assert send_parameters(queue.address, group_id="g", message_id="i") == {
        "MessageGroupId": "g",
        "MessageDeduplicationId": "i",
    }
    options = send_parameters(queue.address, group_id="g", deduplication_id="d", message_id="i")
    assert options["MessageDeduplicationId"] == "d"


@pytest.mark.parametrize(
    ("queue", "options", "reason"),
    [
        ("q.fifo", {"delay": 5, "group_id": "g"}, "no delay per message"),
        ("q.fifo", {}, "give the call a group_id"),
        ("q", {"deduplication_id": "d"}, "not a FIFO queue"),
        ("q", {"group_id": ""}, "group_id ''"),
        ("q", {"group_id": "a b"}, "group_id 'a b'"),
        ("q", {"group_id": "ü"}, "group_id"),
        ("q", {"group_id": "x" * 129}, "group_id"),
        ("q.fifo", {"group_id": "g", "deduplication_id": 5}, "deduplication_id 5"),
    ],
)
def test_options_sqs_would_refuse_are_errors(
    env: Environment, queue: str, options: dict[str, Any], reason: str
) -> None:
    env(DISPATCH_QUEUES=f"q=http://127.0.0.1:9/1/{queue}")
    with pytest.raises(InvalidCall, match=reason):
        send_parameters(open_queue("q").address, **options)


def test_size_is_checked_against_the_limit() -> None:
    check_size("x" * MAX_MESSAGE_BYTES, function="f")
    with pytest.raises(MessageTooLarge, match=r"f: the message has 1,048,577 bytes, .*1,048,576"):
        check_size("x" * (MAX_MESSAGE_BYTES + 1), function="f")


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AWS_REGION", "not a region", "InvalidRegionError"),
        ("AWS_PROFILE", "nobody", "ProfileNotFound"),
        ("AWS_ACCESS_KEY_ID", "alone", "PartialCredentialsError"),
        ("AWS_ENDPOINT_URL", "nowhere", "ValueError"),
    ],
)
def test_a_client_that_cannot_be_made_is_a_send_error(
    env: Environment, variable: str, value: str, reason: str
) -> None:
    env(**{"DISPATCH_QUEUES": "jobs=a-queue", variable: value})
    with pytest.raises(SendError, match=f"making a client on a-queue: {reason}"):
        open_queue("jobs")


# --- sending ---


def test_a_refusal_is_a_send_error_with_its_cause(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    secret = "SignatureDoesNotMatch\nx-amz-security-token:hush"
    proxy.spoil = lambda operation, request: error(403, "AccessDenied", secret)
    with pytest.raises(SendError, match="SendMessage on .*AccessDenied") as caught:
        queue.send("{}", {})
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_lost_connection_is_a_send_error(
    sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        raise ConnectionError

    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    monkeypatch.setattr(proxy, "forward", lose)
    with pytest.raises(SendError, match="SendMessage on .*: ConnectionClosedError: "):
        queue.send("{}", {})
    assert queue.send_batch([Entry(body="{}", send_parameters={})]).unsent.keys() == {0}
    with pytest.raises(SendError, match="ReceiveMessage on .*: ConnectionClosedError: "):
        queue.receive(count=1, wait=0, visibility=30)


def test_a_look_up_that_is_denied_says_what_to_do(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda operation, request: error(403, "AccessDenied")
    with pytest.raises(SendError, match="give its URL or ARN in BEANSTALK_DISPATCH_QUEUES"):
        open_queue("jobs")


def test_a_queue_that_cannot_be_created_is_a_send_error(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda operation, request: (
        error(403, "AccessDenied") if operation == "CreateQueue" else None
    )
    with pytest.raises(SendError, match="CreateQueue"):
        open_queue("jobs")


def test_nobody_there_is_a_send_error(env: Environment) -> None:
    env(DISPATCH_QUEUES="q=http://127.0.0.1:9/1/q", DISPATCH_SQS_KEY="k", DISPATCH_SQS_SECRET="s")
    with pytest.raises(SendError, match="EndpointConnectionError"):
        open_queue("q").send("{}", {})


def entries(*sizes: int) -> list[Entry]:
    return [Entry(body="x" * size, send_parameters={}) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "chunks"),
    [
        ([], []),
        ([1] * 10, [10]),
        ([1] * 21, [10, 10, 1]),
        ([600_000, 600_000, 400_000], [1, 2]),
        ([1_048_576, 1], [1, 1]),
    ],
)
def test_batches_keep_both_limits(sizes: list[int], chunks: list[int]) -> None:
    assert [len(chunk) for chunk in _chunks(entries(*sizes))] == chunks


def test_a_batch_arrives(sqs_env: Environment) -> None:
    queue = open_queue("jobs")
    sent = queue.send_batch(entries(*range(1, 13)))
    assert sent.unsent == {}
    assert sent.ids.keys() == set(range(12))
    received = receive(queue) + receive(queue)
    assert sorted(len(each.body) for each in received) == list(range(1, 13))


def partly(*failures: dict[str, str]) -> Any:
    """Answer batch after batch; each dict maps an id to its error code (``!`` for our fault)."""
    answers = iter(failures)

    def spoil(operation: str, request: dict[str, Any]) -> Answer | None:
        assert operation == "SendMessageBatch"
        failed = next(answers, {})
        ids = [entry["Id"] for entry in request["Entries"]]
        return 200, {
            "Successful": [{"Id": i, "MessageId": i, "MD5OfMessageBody": ""} for i in ids
                           if i not in failed],
            "Failed": [{"Id": i, "Code": code.strip("!"), "SenderFault": code.startswith("!")}
                       for i, code in failed.items()],
        }  # fmt: skip

    return spoil


@pytest.fixture
def spoilt(sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    open_queue("jobs")
    proxy.counts.clear()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # botocore checks each message's MD5; these answers have none
    open_queue("jobs").client.meta.events.unregister(
        "after-call.sqs.SendMessageBatch", unique_id=None
    )
    return proxy


def test_what_sqs_refused_for_now_is_sent_again(spoilt: Proxy) -> None:
    spoilt.spoil = partly({"1": "InternalError", "2": "ServiceUnavailable"}, {"2": "InternalError"})
    assert open_queue("jobs").send_batch(entries(1, 1, 1)).unsent == {}
    assert spoilt.counts["SendMessageBatch"] == 3


def test_what_is_our_fault_is_not_sent_again(spoilt: Proxy) -> None:
    spoilt.spoil = partly({"0": "!InvalidMessageContents", "1": "InternalError"})
    assert open_queue("jobs").send_batch(entries(1, 1)).unsent == {0: "InvalidMessageContents: "}
    assert spoilt.counts["SendMessageBatch"] == 2


def test_only_faults_of_ours_end_a_batch_at_once(spoilt: Proxy) -> None:
    spoilt.spoil = partly({"0": "!InvalidMessageContents"})
    assert open_queue("jobs").send_batch(entries(1)).unsent == {0: "InvalidMessageContents: "}
    assert spoilt.counts["SendMessageBatch"] == 1


def test_what_is_refused_too_often_is_reported(spoilt: Proxy) -> None:
    spoilt.spoil = partly(*[{"1": "InternalError"}] * 10)
    assert open_queue("jobs").send_batch(entries(1, 1)).unsent == {1: "InternalError: "}
    assert spoilt.counts["SendMessageBatch"] == BATCH_ATTEMPTS


def test_after_a_failed_request_the_rest_is_reported_unsent(spoilt: Proxy) -> None:
    spoilt.spoil = lambda operation, request: (
        error(400, "AccessDenied") if request["Entries"][0]["Id"] == "10" else None
    )
    unsent = open_queue("jobs").send_batch(entries(*[1] * 25)).unsent
    assert sorted(unsent) == list(range(10, 25))
    assert "AccessDenied" in unsent[24]
    assert spoilt.counts["SendMessageBatch"] == 2


# --- receiving ---


def test_received_messages_know_what_the_daemon_would_tell(sqs_env: Environment) -> None:
    queue = open_queue("jobs")
    attribute = {"name": {"DataType": "String", "StringValue": "value"}}
    sent = queue.send("body", {"MessageAttributes": attribute})
    before = time.monotonic()
    (received,) = receive(queue)
    assert (received.message_id, received.body) == (sent, "body")
    assert received.attributes["ApproximateReceiveCount"] == "1"
    assert received.message_attributes == {"name": "value"}
    assert before + 30 - 1 < received.expires <= time.monotonic() + 30
    assert received.is_ours


def test_visibility_and_deletion(sqs_env: Environment) -> None:
    queue = open_queue("jobs")
    queue.send("1", {})
    queue.send("2", {})
    received = receive(queue)
    assert queue.change_visibility_batch(received, [0, 0]) == []
    assert not received[0].is_ours
    again = receive(queue)
    assert len(again) == 2
    assert queue.delete_batch(again) == []
    assert receive(queue) == []
    assert queue.depth() == 0


def test_refused_entries_come_back(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send("1", {})
    (received,) = receive(queue)
    failed = {"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}]}
    proxy.spoil = lambda operation, request: (200, failed)
    expires = received.expires
    reason = "ReceiptHandleIsInvalid: "
    refused = Refused(received, reason, True)
    assert queue.delete_batch([received]) == [refused]
    assert queue.change_visibility_batch([received], [99]) == [refused]
    assert received.expires == expires


@pytest.mark.parametrize("operation", ["receive", "delete_batch", "change_visibility_batch"])
def test_lost_requests_are_send_errors(sqs_env: Environment, proxy: Proxy, operation: str) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send("1", {})
    messages = receive(queue)
    proxy.spoil = lambda operation, request: error(400, "AccessDenied")
    calls: dict[str, Any] = {
        "receive": lambda: receive(queue),
        "delete_batch": lambda: queue.delete_batch(messages),
        "change_visibility_batch": lambda: queue.change_visibility_batch(messages, [1]),
    }
    with pytest.raises(SendError, match="AccessDenied"):
        calls[operation]()
    assert queue.depth() is None
    assert open_queue("jobs") is queue


@pytest.mark.parametrize("code", ["ExpiredToken", "QueueDoesNotExist"])
def test_stale_credentials_and_addresses_are_looked_up_anew(
    sqs_env: Environment, proxy: Proxy, code: str
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    proxy.spoil = lambda operation, request: (
        error(400, code) if operation == "ReceiveMessage" else None
    )
    with pytest.raises(SendError, match=code):
        receive(queue)
    assert open_queue("jobs") is not queue


@pytest.mark.parametrize("operation", ["receive", "delete_batch", "change_visibility_batch"])
def test_any_error_of_a_request_is_a_send_error(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """botocore raises a bare RuntimeError for credentials that are still expired."""
    queue = open_queue("jobs")
    queue.send("1", {})
    messages = receive(queue)

    def surprise(**kwargs: Any) -> None:
        raise RuntimeError("the refreshed credentials are still expired")

    requests = ("receive_message", "delete_message_batch", "change_message_visibility_batch")
    for client in (queue._long_poll_client, queue._short_timeout_client):
        for request in requests:
            monkeypatch.setattr(client, request, surprise)
    calls: dict[str, Any] = {
        "receive": lambda: receive(queue),
        "delete_batch": lambda: queue.delete_batch(messages),
        "change_visibility_batch": lambda: queue.change_visibility_batch(messages, [1]),
    }
    with pytest.raises(SendError, match="RuntimeError: the refreshed credentials"):
        calls[operation]()
    assert open_queue("jobs") is not queue


@pytest.mark.parametrize(("code", "is_missing"), [("QueueDoesNotExist", True), ("Other", False)])
def test_a_missing_queue_is_told_from_other_trouble(
    sqs_env: Environment, proxy: Proxy, code: str, is_missing: bool
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    proxy.spoil = lambda operation, request: error(400, code)
    with pytest.raises(SendError) as caught:
        receive(queue)
    assert failed_on_missing_queue(caught.value) is is_missing
    assert failed_on_missing_queue(UnknownQueue("none"))


def test_a_receipt_that_came_anew_keeps_its_own_clock(sqs_env: Environment, proxy: Proxy) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    queue.send("1", {})
    (received,) = receive(queue)

    def received_again(operation: str, request: dict[str, Any]) -> None:
        received.receipt, received.expires = "newer", 5.0

    proxy.spoil = received_again
    queue.change_visibility_batch([received], [99])
    assert received.expires == 5.0


def test_a_consumer_finds_its_queue_by_name(env: Environment) -> None:
    env(
        DISPATCH_QUEUES=f"a=https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/one "
        f"b=https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/two",
        DISPATCH_SQS_KEY="k",
        DISPATCH_SQS_SECRET="s",
    )
    assert open_queue_by_own_name("two").url.endswith("/two")
    assert open_queue_by_own_name("two") is open_queue_by_own_name("two")


def test_a_queue_without_an_alias_is_looked_up_by_its_name(
    sqs_env: Environment, queue_name: str
) -> None:
    open_queue("jobs")
    sqs_env(DISPATCH_QUEUES="other=http://127.0.0.1:9/1/other")
    assert open_queue_by_own_name(queue_name).name == queue_name
    assert get_config().queues.keys() == {"other"}


def test_credentials_that_come_later_are_found(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs_env(DISPATCH_SQS_KEY=None, DISPATCH_SQS_SECRET=None)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    for _ in range(2):
        with pytest.raises(SendError, match="NoCredentialsError"):
            open_queue("jobs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "late")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "late")
    queue = open_queue("jobs")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    sqs_env(DISPATCH_QUEUES=f"jobs={queue.url}")
    with pytest.raises(SendError, match="NoCredentialsError"):
        open_queue("jobs").send("{}", {})
    assert open_queue("jobs").send_batch(entries(1)).unsent
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "later")
    assert open_queue("jobs").send("{}", {})


def test_an_entry_that_sqs_does_not_mention_is_not_sent(spoilt: Proxy) -> None:
    spoilt.spoil = lambda operation, request: (200, {"Successful": [], "Failed": []})
    sent = open_queue("jobs").send_batch(entries(1, 1))
    assert sent.unsent == {0: "no answer: ", 1: "no answer: "}
    assert not sent.ids


def test_after_a_gap_a_fifo_queue_gets_no_more(spoilt: Proxy, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES="jobs=order.fifo", DISPATCH_SQS_ENDPOINT_URL=spoilt.url)
    queue = open_queue("jobs")
    spoilt.spoil = partly({"3": "!Bad"})
    sent = queue.send_batch(
        [Entry(body="{}", send_parameters={"MessageGroupId": "g", "MessageDeduplicationId": str(n)})
         for n in range(25)]
    )  # fmt: skip
    assert sorted(sent.unsent) == [3, *range(10, 25)]
    assert sent.unsent[3].startswith("Bad")
    assert sent.unsent[24] == "not tried, since one before it was not sent"


def test_of_two_queues_of_one_name_a_consumer_takes_that_of_its_region(env: Environment) -> None:
    arns = [f"arn:aws:sqs:{region}:{ACCOUNT}:q" for region in ("eu-west-1", "us-west-2")]
    env(DISPATCH_QUEUES=f"a={arns[0]} b={arns[1]}", AWS_REGION="us-west-2")
    assert open_queue_by_own_name("q").address.region == "us-west-2"
    env(AWS_REGION="eu-central-1")
    assert open_queue_by_own_name("q").address.region == "eu-west-1"


def test_credentials_that_cannot_be_refreshed_are_a_send_error(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**request: Any) -> None:
        raise RuntimeError("the refreshed credentials are still expired")

    queue = open_queue("jobs")
    for operation in ("send_message", "send_message_batch"):
        monkeypatch.setattr(queue.client, operation, refused)
    with pytest.raises(SendError, match="SendMessage on .*: RuntimeError: the refreshed"):
        queue.send("{}", {})
    assert "still expired" in queue.send_batch(entries(1)).unsent[0]
    assert open_queue("jobs").client is not queue.client
