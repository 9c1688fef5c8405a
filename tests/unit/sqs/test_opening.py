from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import SendError, UnknownQueue
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.sqs import clients
from beanstalk_dispatch.sqs.opening import _open_queues, open_queue, open_queue_by_own_name
from beanstalk_dispatch.sqs.queue import Queue, Received
from tests.batches import Entry
from tests.conftest import Environment
from tests.proxy import Proxy, error
from tests.services import in_child

ACCOUNT = "123456789012"
SSO_PROFILE = f"""
[profile sso]
sso_start_url = https://shop.awsapps.com/start
sso_region = eu-west-1
sso_account_id = {ACCOUNT}
sso_role_name = Developer
"""


def entries(*sizes: int) -> list[Entry]:
    return [Entry(body="x" * size, send_parameters={}) for size in sizes]


def receive(queue: Queue, visibility: int = 30) -> list[Received]:
    return queue.receive(count=10, wait=0, visibility=visibility)


def test_a_missing_queue_is_created_with_a_dead_letter_queue(
    without_queue: Environment, queue_name: str, caplog: pytest.LogCaptureFixture
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


@pytest.mark.parametrize("suffix", ["", ".fifo"])
def test_the_dead_letter_queue_is_created_without_a_redrive_policy(
    sqs_env: Environment, queue_name: str, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    name = f"{queue_name}-dead{suffix}"
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} dead={name}", DISPATCH_DEAD_LETTER_QUEUE="dead")
    queue = open_queue("dead")
    attributes: Any = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])
    assert "RedrivePolicy" not in attributes["Attributes"]
    assert attributes["Attributes"].get("FifoQueue", "") == ("true" if suffix else "")
    assert f"created queue={name} dead_letter_queue=none" in caplog.text


def test_the_queue_of_the_other_tests_is_like_a_created_one(
    sqs_env: Environment, queue_name: str
) -> None:
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} new={queue_name}-new")

    def attributes(alias: str) -> dict[str, str]:
        queue = open_queue(alias)
        answer: Any = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])
        return {
            name: value.replace(queue.name, "")
            for name, value in answer["Attributes"].items()
            if not name.endswith("Timestamp")
        }

    assert attributes("jobs") == attributes("new")


def test_a_missing_queue_is_an_error_that_says_where(
    without_queue: Environment, queue_name: str
) -> None:
    without_queue(DISPATCH_CREATE_QUEUES=None)
    with pytest.raises(UnknownQueue) as caught:
        open_queue("jobs")
    assert str(caught.value) == (
        f"SQS has no queue '{queue_name}' in eu-west-1, for these credentials; correct the region "
        "with BEANSTALK_DISPATCH_SQS_REGION, or by the queue's URL in BEANSTALK_DISPATCH_QUEUES, "
        "or set BEANSTALK_DISPATCH_CREATE_QUEUES=True"
    )


def test_an_unknown_alias_is_an_error_that_lists_them(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES="mail=a work=b")
    with pytest.raises(UnknownQueue) as caught:
        open_queue("jobs")
    assert str(caught.value) == "'jobs' is not in BEANSTALK_DISPATCH_QUEUES; known: mail, work"


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


def test_for_a_url_or_an_arn_sqs_is_not_asked(sqs_env: Environment, proxy: Proxy) -> None:
    url = f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/q"
    sqs_env(
        DISPATCH_QUEUES=f"url={url} arn=arn:aws:sqs:eu-west-1:{ACCOUNT}:q",
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
    )
    assert open_queue("url").url == open_queue("arn").url == url
    assert proxy.counts.total() == 0


def test_threads_share_one_client(without_queue: Environment) -> None:
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

    def send() -> bool:
        mine = open_queue("jobs")
        mine.send("{}", {})
        return mine.client is not queue.client

    with _open_queues.lock:  # as if another thread held it at the fork
        in_child(send)
    assert len(receive(queue)) == 1


def test_a_denied_lookup_says_what_to_do(
    sqs_env: Environment, proxy: Proxy, queue_name: str
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda operation, request: error(403, "AccessDenied")
    with pytest.raises(SendError) as caught:
        open_queue("jobs")
    assert str(caught.value) == (
        f"GetQueueUrl on {queue_name}: AccessDenied: An error occurred (AccessDenied) when calling "
        "the GetQueueUrl operation: told to fail; Elastic Beanstalk's roles do not allow it. Set "
        "the queue's URL or ARN in BEANSTALK_DISPATCH_QUEUES"
    )


def test_without_credentials_the_error_says_where_they_come_from(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_SQS_KEY=None, DISPATCH_SQS_SECRET=None)
    with pytest.raises(SendError) as caught:
        open_queue("jobs")
    assert str(caught.value).endswith(
        "Unable to locate credentials; give the environment an instance profile that allows "
        "sqs:SendMessage, on a worker also sqs:ReceiveMessage, sqs:DeleteMessage and "
        "sqs:ChangeMessageVisibility, or set BEANSTALK_DISPATCH_SQS_KEY and "
        "BEANSTALK_DISPATCH_SQS_SECRET"
    )


def test_a_local_server_that_does_not_run_is_named(sqs_env: Environment, short_waits: None) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:9")
    with pytest.raises(SendError) as caught:
        open_queue("jobs")
    assert str(caught.value).endswith(
        '"http://127.0.0.1:9/"; start that server, or correct BEANSTALK_DISPATCH_SQS_ENDPOINT_URL'
    )


def test_a_queue_that_is_given_by_url_is_not_created(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_QUEUES="jobs=https://sqs.eu-west-1.amazonaws.com/123456789012/nowhere")
    with pytest.raises(SendError) as caught:
        open_queue("jobs").send("{}", {})
    assert str(caught.value).endswith(
        "does not exist; correct the region, account and name of its URL in "
        "BEANSTALK_DISPATCH_QUEUES; "
        "BEANSTALK_DISPATCH_CREATE_QUEUES creates only what is given by name"
    )
    sqs_env(DISPATCH_CREATE_QUEUES=None)
    with pytest.raises(SendError, match="of its URL in BEANSTALK_DISPATCH_QUEUES$"):
        open_queue("jobs").send("{}", {})


def test_without_a_region_the_error_says_which_variable_sets_it(
    without_queue: Environment, moto: str
) -> None:
    without_queue(DISPATCH_SQS_REGION=None, DISPATCH_CREATE_QUEUES=None)
    with pytest.raises(
        UnknownQueue,
        match="in us-east-1, which is only the default, .* with BEANSTALK_DISPATCH_SQS_REGION",
    ):
        open_queue("jobs")
    without_queue(DISPATCH_SQS_ENDPOINT_URL=None, AWS_ENDPOINT_URL_SQS=moto)
    with pytest.raises(UnknownQueue, match=r"or create it as manage\.py beanstalk_eb prints$"):
        open_queue("jobs")


def test_a_queue_that_cannot_be_created_is_a_send_error(
    without_queue: Environment, proxy: Proxy
) -> None:
    without_queue(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda operation, request: (
        error(403, "AccessDenied") if operation == "CreateQueue" else None
    )
    with pytest.raises(SendError, match="CreateQueue"):
        open_queue("jobs")


def fail_to_receive(queue: Queue, proxy: Proxy, code: str) -> None:
    """SQS answers a receive with an error; every other request succeeds."""
    status = 403 if code == "ExpiredToken" else 400
    proxy.spoil = lambda operation, request: (
        error(status, code) if operation == "ReceiveMessage" else None
    )
    with pytest.raises(SendError, match=code):
        receive(queue)


@pytest.mark.parametrize("code", ["ExpiredToken", "QueueDoesNotExist", "SignatureDoesNotMatch"])
def test_after_wrong_credentials_or_a_missing_queue_it_is_opened_again(
    sqs_env: Environment, proxy: Proxy, code: str
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    queue = open_queue("jobs")
    fail_to_receive(queue, proxy, code)
    assert open_queue("jobs") is not queue


def test_wrong_credentials_are_not_read_again_by_each_send(
    sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new client takes twenty milliseconds, and may ask the metadata service of the machine."""
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    fail_to_receive(open_queue("jobs"), proxy, "SignatureDoesNotMatch")
    queue = open_queue("jobs")
    fail_to_receive(queue, proxy, "SignatureDoesNotMatch")
    assert open_queue("jobs") is queue
    later = clock.monotonic() + clients.RENEWAL_SECONDS
    monkeypatch.setattr(clock, "monotonic", lambda: later)
    fail_to_receive(queue, proxy, "SignatureDoesNotMatch")
    assert open_queue("jobs") is not queue


@pytest.fixture
def two_queues(sqs_env: Environment, proxy: Proxy, queue_name: str) -> tuple[Queue, Queue]:
    sqs_env(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
        DISPATCH_QUEUES=f"jobs={queue_name} other={queue_name}-other",
    )
    return open_queue("jobs"), open_queue("other")


def test_expired_credentials_are_read_again_for_all_queues(
    two_queues: tuple[Queue, Queue], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, other = two_queues
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "tests")  # or tests/conftest.py gives the same client
    fail_to_receive(jobs, proxy, "ExpiredToken")
    assert open_queue("other").client is not other.client
    assert open_queue("other").client is open_queue("jobs").client


def test_a_missing_queue_leaves_the_others_open(
    two_queues: tuple[Queue, Queue], proxy: Proxy
) -> None:
    jobs, other = two_queues
    fail_to_receive(jobs, proxy, "QueueDoesNotExist")
    assert open_queue("other") is other
    assert open_queue("jobs").client is jobs.client


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


def test_an_ended_login_says_how_to_log_in(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(SSO_PROFILE)
    sqs_env(DISPATCH_SQS_KEY=None, DISPATCH_SQS_SECRET=None, AWS_PROFILE="sso")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(
        SendError, match="SSOTokenLoadError: .*; the login has ended: aws sso login"
    ):
        open_queue("jobs")


def test_credentials_that_come_later_are_found(
    sqs_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs_env(DISPATCH_SQS_KEY=None, DISPATCH_SQS_SECRET=None)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setattr(clients, "RENEWAL_SECONDS", 0)
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


def test_of_two_queues_with_one_name_the_one_in_its_own_region_is_opened(env: Environment) -> None:
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

    sqs_env(DISPATCH_SQS_KEY=None, DISPATCH_SQS_SECRET=None)
    sqs_env(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="a-secret-key")
    queue = open_queue("jobs")
    for operation in ("send_message", "send_message_batch"):
        monkeypatch.setattr(queue.client, operation, refused)
    with pytest.raises(SendError, match="SendMessage on .*: RuntimeError: the refreshed"):
        queue.send("{}", {})
    assert "still expired" in queue.send_batch(entries(1)).unsent[0]
    assert open_queue("jobs").client is not queue.client
