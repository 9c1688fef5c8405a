from __future__ import annotations

import json
import shlex
import time
from typing import Any

import boto3
import pytest
from django.core.checks import ERROR, INFO, WARNING, CheckMessage

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.problems import aws_doctor
from beanstalk_dispatch.sqs import inspection
from beanstalk_dispatch.sqs.inspection import InspectionError, Inspector
from tests.conftest import Environment
from tests.proxy import Proxy, error
from tests.services import free_port

ACCOUNT = "123456789012"


@pytest.fixture
def aws(without_queue: Environment, moto: str) -> Environment:
    """As on AWS: STS has an address of its own."""
    without_queue(AWS_ENDPOINT_URL_STS=moto, DISPATCH_CREATE_QUEUES=None)
    return without_queue


@pytest.fixture
def sqs(moto: str) -> Any:
    return boto3.client("sqs", endpoint_url=moto, region_name="eu-west-1",
                        aws_access_key_id="key", aws_secret_access_key="secret")  # fmt: skip


def create(sqs: Any, name: str, *, dead_letters: str | None = "", **attributes: str) -> str:
    """A queue with a dead-letter queue; with None, without a redrive policy."""
    given = dict(attributes)
    if dead_letters is not None:
        dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        arn = dead_letters or sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])[
            "Attributes"]["QueueArn"]  # fmt: skip
        policy = {"deadLetterTargetArn": arn, "maxReceiveCount": 12}
        given["RedrivePolicy"] = json.dumps(policy)
    given = {"VisibilityTimeout": "300", **given}
    url: str = sqs.create_queue(QueueName=name, Attributes=given)["QueueUrl"]
    return url


def examine() -> list[CheckMessage]:
    return list(aws_doctor.examine())


def bad(findings: list[CheckMessage]) -> list[CheckMessage]:
    return [finding for finding in findings if finding.level != INFO]


def test_a_queue_that_is_set_up_well_has_nothing_but_ok(
    aws: Environment, sqs: Any, queue_name: str
) -> None:
    url = create(sqs, queue_name)
    messages = [finding.msg for finding in examine()]
    assert bad(examine()) == []
    assert messages[:2] == ["eu-west-1", f"account {ACCOUNT}, arn:aws:sts::{ACCOUNT}:user/moto"]
    assert f"{url} answers, and does not refuse to be sent to" in messages
    assert "VisibilityTimeout 300 s is above the time limit of 120 s" in messages
    assert f"the dead-letter queue {queue_name}-dead is empty" in messages
    assert "about 0 messages wait, 0 are in flight" in messages
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["ApproximateNumberOfMessages"] == "0"  # the examination has sent nothing


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"VisibilityTimeout": "60"}, "VisibilityTimeout 60 s is not above the longest time limit"),
        ({"MaximumMessageSize": "262144"}, "MaximumMessageSize is 262,144 bytes; SQS allows"),
        ({"KmsMasterKeyId": "alias/shop"}, "it is encrypted with the KMS key alias/shop"),
        ({"dead_letters": None}, "it has no redrive policy"),
    ],
)
def test_what_is_wrong_with_a_queue_is_said(
    aws: Environment, sqs: Any, queue_name: str, attributes: dict[str, Any], message: str
) -> None:
    create(sqs, queue_name, **attributes)
    (finding,) = bad(examine())
    assert message in finding.msg
    assert finding.hint
    assert finding.obj == "queue jobs"


def test_few_receives_are_said(aws: Environment, sqs: Any, queue_name: str) -> None:
    arn = f"arn:aws:sqs:eu-west-1:{ACCOUNT}:{queue_name}-dead"
    create(sqs, queue_name, dead_letters=None)
    sqs.create_queue(QueueName=f"{queue_name}-dead")
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"})
    sqs.create_queue(QueueName=f"{queue_name}-2", Attributes={
        "RedrivePolicy": policy, "VisibilityTimeout": "300"})  # fmt: skip
    aws(DISPATCH_QUEUES=f"jobs={queue_name}-2")
    (finding,) = bad(examine())
    assert finding.msg == "maxReceiveCount is 2: a deployment can use up 2 receives"


def test_dead_letters_and_waiting_messages_are_said(
    aws: Environment, sqs: Any, queue_name: str
) -> None:
    url = create(sqs, queue_name)
    sqs.send_message(QueueUrl=f"{url}-dead", MessageBody="x")
    sqs.send_message(QueueUrl=url, MessageBody="x")
    dead, waiting = bad(examine())
    assert dead.msg == f"about 1 messages are in the dead-letter queue {queue_name}-dead"
    assert waiting.msg.startswith("about 1 messages wait and none is in flight")


def test_a_queue_that_is_missing_is_said_with_its_region(
    aws: Environment, queue_name: str, moto: str
) -> None:
    (finding,) = bad(examine())
    assert finding.level == ERROR
    assert finding.msg == (f"there is no queue {queue_name!r} in eu-west-1 for these credentials")
    aws(DISPATCH_QUEUES=f"jobs={moto}/{ACCOUNT}/{queue_name}")
    assert [each.msg for each in bad(examine())] == [finding.msg]


def test_a_queue_of_another_region_is_missing_here(
    aws: Environment, sqs: Any, queue_name: str
) -> None:
    create(sqs, queue_name)
    aws(DISPATCH_SQS_REGION="us-west-2")
    (finding,) = bad(examine())
    assert f"no queue {queue_name!r} in us-west-2" in finding.msg
    aws(DISPATCH_SQS_REGION=None)
    first, *_ = examine()
    assert first.level == WARNING
    assert first.msg == "no region is configured, and a queue is given by its name"


def test_a_dead_letter_queue_that_is_missing_is_said(
    aws: Environment, sqs: Any, queue_name: str, proxy: Proxy
) -> None:
    create(sqs, queue_name)
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=f"{queue_name}-dead")["QueueUrl"])
    (finding,) = bad(examine())
    assert finding.level == ERROR
    assert f"{queue_name}-dead does not exist: messages that fail are lost" in finding.msg


def test_a_dead_letter_queue_of_a_queue_by_url_is_asked_by_its_url(
    aws: Environment, sqs: Any, queue_name: str, moto: str
) -> None:
    create(sqs, queue_name)
    aws(DISPATCH_SQS_ENDPOINT_URL=None, AWS_ENDPOINT_URL_SQS=moto)
    aws(DISPATCH_QUEUES=f"jobs=https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/{queue_name}")
    aws(DISPATCH_SQS_REGION=None)  # the URL names it
    assert [f.msg for f in bad(examine())] == []


def test_the_dead_letter_queue_needs_neither_a_reader_nor_a_policy_of_its_own(
    aws: Environment, sqs: Any, queue_name: str
) -> None:
    create(sqs, queue_name)
    url = create(sqs, f"{queue_name}-failed", dead_letters=None, VisibilityTimeout="30")
    aws(DISPATCH_QUEUES=f"jobs={queue_name} dead={queue_name}-failed")
    aws(DISPATCH_DEAD_LETTER_QUEUE="dead")
    assert bad(examine()) == []
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (waiting,) = bad(examine())
    assert f"beanstalk_dead_letters list {queue_name}-failed" in str(waiting.hint)


def test_a_redrive_policy_of_the_dead_letter_queue_is_an_error(
    aws: Environment, sqs: Any, queue_name: str
) -> None:
    url = create(sqs, queue_name)
    aws(DISPATCH_DEAD_LETTER_QUEUE="jobs")
    (finding,) = bad(examine())
    assert finding.id == "beanstalk_dispatch.E220"
    words = shlex.split(str(finding.hint))
    assert words[:3] == ["aws", "sqs", "set-queue-attributes"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes=json.loads(words[-1]))
    assert bad(examine()) == []


# --- permissions, clocks and credentials -----------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "status", "message"),
    [
        ("GetQueueUrl", ERROR, "these credentials may not look up a queue by its name"),
        (
            "GetQueueAttributes",
            WARNING,
            "these credentials may not GetQueueAttributes",
        ),
        ("SendMessageBatch", ERROR, "these credentials may not send: AccessDenied"),
    ],
)
def test_a_missing_permission_is_said_as_such(
    aws: Environment, sqs: Any, queue_name: str, proxy: Proxy, operation: str,
    status: int, message: str,
) -> None:  # fmt: skip
    create(sqs, queue_name)
    aws(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda called, request: (
        error(403, "AccessDenied", "no identity-based policy allows it")
        if called == operation
        else None
    )
    (finding,) = bad(examine())
    assert finding.level == status
    assert message in finding.msg
    assert "no identity-based policy allows it" in finding.msg


def test_the_backlog_needs_a_permission_that_the_roles_lack(
    aws: Environment, sqs: Any, queue_name: str, proxy: Proxy
) -> None:
    create(sqs, queue_name)
    aws(DISPATCH_SQS_ENDPOINT_URL=proxy.url, DISPATCH_BACKLOG_TOKEN="a-token-of-the-tests")
    proxy.spoil = lambda called, request: (
        error(403, "AccessDenied") if called == "GetQueueAttributes" else None
    )
    (finding,) = bad(examine())
    assert finding.level == ERROR
    assert "these credentials may not ask for the backlog: AccessDenied" in finding.msg
    assert "sqs:GetQueueAttributes" in str(finding.hint)


def test_a_dead_letter_queue_that_may_not_be_read_is_a_warning(
    aws: Environment, sqs: Any, queue_name: str, proxy: Proxy
) -> None:
    create(sqs, queue_name)
    aws(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda called, request: (
        error(403, "AccessDenied")
        if request.get("QueueName", "").endswith("-dead") and called == "GetQueueUrl"
        else None
    )
    (finding,) = bad(examine())
    assert finding.level == WARNING
    assert "could not be read: AccessDenied" in finding.msg


def test_a_send_that_fails_for_another_reason_is_said(
    aws: Environment, sqs: Any, queue_name: str, proxy: Proxy
) -> None:
    create(sqs, queue_name)
    aws(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda called, request: (
        error(403, "SignatureDoesNotMatch", "Signature expired: 20261125T030000Z is now earlier")
        if called == "SendMessageBatch"
        else None
    )
    (finding,) = bad(examine())
    assert finding.msg.startswith("SendMessageBatch: SignatureDoesNotMatch: Signature expired")
    assert "set the clock of this machine" in str(finding.hint)


def test_a_queue_that_is_deleted_while_it_is_examined_is_said_once(
    aws: Environment, sqs: Any, queue_name: str, proxy: Proxy
) -> None:
    create(sqs, queue_name)
    aws(DISPATCH_SQS_ENDPOINT_URL=proxy.url)
    proxy.spoil = lambda called, request: (
        None if called == "GetQueueUrl" else error(400, "QueueDoesNotExist")
    )
    assert len(bad(examine())) == 1


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(2, INFO), (-60, WARNING), (900, ERROR)],
)
def test_a_clock_that_is_off_is_said(
    aws: Environment, sqs: Any, queue_name: str, monkeypatch: pytest.MonkeyPatch, seconds: float,
    status: int,
) -> None:  # fmt: skip
    create(sqs, queue_name)
    clock = type("Clock", (), {"time": staticmethod(lambda: time.time() + seconds)})
    monkeypatch.setattr(inspection, "time", clock)
    *_, finding = examine()
    assert finding.obj == "clock"
    assert finding.level == status


def test_no_credentials_are_said_with_what_to_set(aws: Environment, moto: str) -> None:
    aws(DISPATCH_SQS_KEY=None, DISPATCH_SQS_SECRET=None, DISPATCH_QUEUES=None)
    credentials, queues = bad(examine())
    assert "Unable to locate credentials" in credentials.msg
    assert "BEANSTALK_DISPATCH_SQS_KEY" in str(credentials.hint)
    assert queues.msg == "BEANSTALK_DISPATCH_QUEUES is not set, so no queue is looked at"


def test_an_aws_that_cannot_be_reached_is_said(aws: Environment) -> None:
    aws(AWS_ENDPOINT_URL_STS=f"http://127.0.0.1:{free_port()}", DISPATCH_QUEUES=None)
    credentials, _ = bad(examine())
    assert "EndpointConnectionError: Could not connect" in credentials.msg
    assert str(credentials.hint).startswith("see that this machine reaches the host")


def test_a_wrong_configuration_is_left_to_the_examination_without_aws(env: Environment) -> None:
    env(WORKER="Ture")
    assert examine() == []


def test_an_endpoint_that_boto_refuses_is_an_inspection_error(aws: Environment) -> None:
    aws(AWS_ENDPOINT_URL_STS="nonsense")
    with pytest.raises(InspectionError, match="ValueError"):
        Inspector(get_config()).identity()


def test_the_region_may_be_botos_own(
    env: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "config").write_text("[default]\nregion = ap-south-1\n")
    env(AWS_CONFIG_FILE=str(tmp_path / "config"))
    inspector = Inspector(get_config())
    assert inspector.region() == "ap-south-1"
    assert inspector.region(QueueAddress(name="q", region="eu-west-1")) == "eu-west-1"
