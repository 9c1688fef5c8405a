"""Thirty-odd faults of AWS on a stub: the doctor names each, with the remedy for it and no other.

``{region}`` and the like in what is expected stand for themselves: a part of the sentence is held.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from django.core.checks import ERROR, INFO, CheckMessage

from beanstalk_dispatch.problems import aws_doctor
from beanstalk_dispatch.sqs import inspection
from beanstalk_dispatch.sqs.error_codes import REMEDIES
from beanstalk_dispatch.sqs.timeouts import Timeouts
from tests.conftest import Environment
from tests.proxy import Answer, Proxy, error
from tests.services import free_port

ACCOUNT = "123456789012"
PAGE = "<html><body>Please log in to the guest network</body></html>"
LOOK_UP, ASK, SEND, WHO = (
    "GetQueueUrl", "GetQueueAttributes", "SendMessageBatch", "GetCallerIdentity",
)  # fmt: skip
DENIED = "User: arn:aws:sts::1:assumed-role/web is not authorized to perform: {} because no "
NOBODY = f"http://127.0.0.1:{free_port()}"


def of_sts(status: int, code: str, message: str) -> Answer:
    """An error of STS, which speaks XML."""
    return status, (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender'
        f"</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    )


def denied(action: str, reason: str = "identity-based policy allows it") -> Answer:
    return error(403, "AccessDenied", DENIED.format(action) + reason)


@dataclass(frozen=True, kw_only=True)
class Fault:
    operation: str = ""
    answer: Answer | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    found: tuple[str, str]
    """The id, and words of the message."""
    remedy: str
    """Words of the hint."""


def spoiled(operation: str, answer: Answer, number: str, named: str, remedy: str) -> Fault:
    return Fault(operation=operation, answer=answer, found=(number, named), remedy=remedy)


def set_wrong(number: str, named: str, remedy: str, **variables: Any) -> Fault:
    return Fault(variables=variables, found=(number, named), remedy=remedy)


HANGS: Answer = (0, {})
CUT: Answer = (-1, {})
FAULTS = {
    # --- the network ---
    "STS hangs": spoiled(WHO, HANGS, "E203", "ReadTimeoutError", "port 443"),
    "SQS hangs": spoiled(LOOK_UP, HANGS, "E203", "GetQueueUrl: ReadTimeoutError", "VPC endpoint"),
    "attributes hang": spoiled(ASK, HANGS, "E203", "ReadTimeoutError", "NAT gateway"),
    "a connection is cut": spoiled(SEND, CUT, "E203", "ConnectionClosedError", "port 443"),
    "nobody answers": set_wrong("E203", "EndpointConnectionError", "reaches the host",
                                DISPATCH_SQS_ENDPOINT_URL=NOBODY),
    "a proxy is down": set_wrong("E203", "ProxyConnectionError", "HTTPS_PROXY",
                                 DISPATCH_SQS_ENDPOINT_URL="https://sqs.eu-west-1.amazonaws.com"),
    "no TLS": set_wrong("E203", "SSLError", "AWS_CA_BUNDLE", DISPATCH_SQS_ENDPOINT_URL="https:"),
    # --- another program answers ---
    "a page for STS": spoiled(WHO, (200, PAGE), "E203", "the answer has no", "another program"),
    "a page": spoiled(LOOK_UP, (200, PAGE), "E203", "no QueueUrl", "NO_PROXY"),
    "a page for attributes": spoiled(ASK, (200, PAGE), "E203", "no Attributes", "another program"),
    "a forbidding page": spoiled(SEND, (403, PAGE), "E203", "403", "another program"),
    "a page of a balancer": spoiled(LOOK_UP, (503, PAGE), "E203", "503", "try again in a minute"),
    # --- AWS itself ---
    "an internal error": spoiled(ASK, error(500, "InternalError"), "E203", "Internal", "try again"),
    "unavailable": spoiled(LOOK_UP, error(503, "ServiceUnavailable"), "E203", "Unavailable",
                           "health.aws.amazon.com"),
    "throttled": spoiled(LOOK_UP, error(400, "RequestThrottled"), "E203", "RequestThrottled",
                         "too many requests"),
    "throttled in new words": spoiled(ASK, error(400, "ThrottlingException"), "E203",
                                      "ThrottlingException", "schedule_many"),
    "STS throttled": spoiled(WHO, of_sts(400, "Throttling", "Rate exceeded"), "E203", "Throttling",
                             "wait a minute"),
    "deleted just now": spoiled(LOOK_UP, error(400, "QueueDeletedRecently"), "E203", "Recently",
                                "wait a minute"),
    # --- permissions ---
    "no look-up": spoiled(LOOK_UP, denied("sqs:GetQueueUrl"), "E219", "look up a queue by its name",
                          "Set the queue's URL or ARN in BEANSTALK_DISPATCH_QUEUES"),
    "no attributes": spoiled(ASK, denied("sqs:GetQueueAttributes"), "W202", "GetQueueAttributes",
                             "allow sqs:GetQueueAttributes"),
    "no send": spoiled(SEND, denied("sqs:SendMessage"), "E209", "may not send",
                       "allow sqs:SendMessage on the queue"),
    "denied by the organization": spoiled(
        SEND, denied("sqs:SendMessage", "because of an explicit deny in a service control policy"),
        "E209", "explicit deny", "ask who administers the AWS organization"),
    "denied by the queue": spoiled(
        SEND, denied("sqs:SendMessage", "with an explicit deny in a resource-based policy"),
        "E209", "explicit deny", "correct that of the queue"),
    "denied by the endpoint": spoiled(
        SEND, denied("sqs:SendMessage", "VPC endpoint policy allows the action"),
        "E209", "VPC endpoint policy", "in the policy of the VPC endpoint"),
    "denied by KMS": spoiled(SEND, error(400, "KMS.AccessDeniedException"), "E203", "KMS.Access",
                             "kms:GenerateDataKey and kms:Decrypt"),
    "denied by KMS in words": spoiled(SEND, denied("kms:GenerateDataKey"), "E209", "kms:Generate",
                                      "in the policy of the key itself"),
    "a key that is disabled": spoiled(SEND, error(400, "KMS.DisabledException"), "E203",
                                      "KMS.Disabled", "enable the queue's KMS key"),
    "a key that is deleted": spoiled(SEND, error(400, "KMS.NotFoundException"), "E203",
                                     "KMS.NotFound", "set another KmsMasterKeyId"),
    "KMS throttled": spoiled(SEND, error(400, "KMS.ThrottlingException"), "E203", "KMS.Throttling",
                             "KmsDataKeyReusePeriodSeconds"),
    # --- credentials ---
    "no credentials": set_wrong("E203", "Unable to locate credentials", "instance profile",
                                DISPATCH_SQS_KEY=None, DISPATCH_SQS_SECRET=None),
    "an unknown key": spoiled(WHO, of_sts(403, "InvalidClientTokenId", "The token is invalid"),
                              "E203", "InvalidClientTokenId", "AWS knows no such access key"),
    "a wrong secret": spoiled(WHO, of_sts(403, "SignatureDoesNotMatch", "does not match"), "E203",
                              "SignatureDoesNotMatch", "which belong together"),
    "expired": spoiled(WHO, of_sts(403, "ExpiredToken", "The token is expired"), "E203",
                       "ExpiredToken", "BEANSTALK_DISPATCH_SQS_TOKEN"),
    "a clock": spoiled(SEND, error(403, "RequestTimeTooSkewed"), "E203", "Skewed",
                       "sudo chronyc makestep"),
    "a region that is not enabled": spoiled(LOOK_UP, error(403, "OptInRequired"), "E203", "OptIn",
                                            "enable the region"),
    "a profile that is misspelt": set_wrong("E203", "ProfileNotFound", "correct AWS_PROFILE",
                                            AWS_PROFILE="shpo"),
    "a profile without a region": set_wrong("E203", "the profile: ProfileNotFound",
                                            "aws configure list-profiles", AWS_PROFILE="shpo",
                                            DISPATCH_SQS_REGION=None),
    # --- queues ---
    "no such queue": set_wrong("E208", "no queue 'none' in eu-west-1", "correct the region",
                               DISPATCH_QUEUES="jobs=none"),
    "another region": set_wrong("E208", "in us-west-2", "aws sqs list-queues --region us-west-2",
                                DISPATCH_SQS_REGION="us-west-2"),
    "no region": set_wrong("E208", "in us-east-1 for these credentials, the default",
                           "correct the region", DISPATCH_SQS_REGION=None),
    "another account": Fault(
        operation=SEND, answer=denied("sqs:SendMessage"), found=("E209", "may not send"),
        remedy="belongs to the account 999999999999, and these credentials to 123456789012",
        variables={"DISPATCH_QUEUES":
                   "jobs=https://sqs.eu-west-1.amazonaws.com/999999999999/shop-mail"}),
}  # fmt: skip


@pytest.fixture
def stub(
    sqs_env: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[threading.Event]:
    """SQS and STS on one server. A request that hangs ends when the event is set."""
    over = threading.Event()
    quick = Timeouts(connect=0.5, read=0.5, attempts=1)
    monkeypatch.setattr(inspection, "DIAGNOSIS_TIMEOUTS", quick)
    monkeypatch.setenv("HTTPS_PROXY", NOBODY)  # nothing is asked of the real AWS
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=proxy.url, AWS_ENDPOINT_URL_STS=proxy.url,
            DISPATCH_CREATE_QUEUES=None, AWS_CONFIG_FILE=str(tmp_path / "config"))  # fmt: skip
    yield over
    over.set()


def bad(findings: Iterator[CheckMessage]) -> list[CheckMessage]:
    return [each for each in findings if each.level > INFO]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_aws_is_named_with_its_remedy(
    name: str, stub: threading.Event, sqs_env: Environment, proxy: Proxy
) -> None:
    fault = FAULTS[name]
    variables = dict(fault.variables)
    if variables.get("DISPATCH_SQS_ENDPOINT_URL") == "https:":
        variables["DISPATCH_SQS_ENDPOINT_URL"] = proxy.url.replace("http:", "https:")
    sqs_env(**variables)

    def spoil(operation: str, request: dict[str, Any]) -> Answer | None:
        if operation != fault.operation:
            return None
        if fault.answer == HANGS:
            stub.wait(10)
        if fault.answer in (HANGS, CUT):
            raise OSError  # the connection is closed without an answer
        return fault.answer

    proxy.spoil = spoil
    (number, named), found = fault.found, bad(aws_doctor.examine())
    matching = [
        each for each in found if each.id == f"beanstalk_dispatch.{number}" and named in each.msg
    ]
    assert matching, [(each.id, each.msg) for each in found]
    assert fault.remedy in str(matching[0].hint)
    assert "E101" not in str(found)
    assert not any("CREATE_QUEUES" in str(each.hint) for each in found)


def test_there_are_enough_faults() -> None:
    assert len(FAULTS) >= 30


def test_each_queue_is_examined_by_itself(
    stub: threading.Event, sqs_env: Environment, proxy: Proxy
) -> None:
    """The first queue hangs, the look-up of the second is a page, and the third is missing."""
    sqs_env(DISPATCH_QUEUES="one=shop-one two=shop-two three=shop-three")

    def spoil(operation: str, request: dict[str, Any]) -> Answer | None:
        if request.get("QueueName") == "shop-one":
            stub.wait(10)
        return (200, PAGE) if request.get("QueueName") == "shop-two" else None

    proxy.spoil = spoil
    found = [each for each in bad(aws_doctor.examine()) if each.level == ERROR]
    assert [each.obj for each in found] == ["queue one", "queue two", "queue three"]


def test_the_remedies_name_errors_that_botocore_has() -> None:
    """A name that botocore does not have would never be found."""
    ours = {each for each in REMEDIES if each.endswith("Error")}
    unknown = {each for each in ours if not hasattr(botocore.exceptions, each)}
    assert unknown == {
        "AttributeError", "InternalError", "ResponseParserError", "RuntimeError",
        "UnicodeDecodeError",
    }  # fmt: skip
