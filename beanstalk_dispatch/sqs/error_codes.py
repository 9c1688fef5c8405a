"""The error codes of AWS, each with its scope and its remedy.

It is the one judgement of SQS's answers: sends, batches, commits, the outbox's relay, the poller
and the doctor use it.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, TypeAlias

from beanstalk_dispatch.conf.variables import (
    QUEUES,
    SEND_TIMEOUT,
    SQS_ENDPOINT_URL,
    SQS_KEY,
    SQS_REGION,
    SQS_SECRET,
    SQS_TOKEN,
)


class Scope(Enum):
    """The reach of an error of SQS, and so the other requests that are worth making."""

    MESSAGE = "this message"
    """The error is of one message. SQS may take the others, also of the same request."""
    QUEUE = "this queue"
    """The error is of the queue. SQS takes no message of it until somebody changes something."""
    EVERYBODY = "everybody"
    """The error is of every queue: these credentials or this clock are wrong.

    The next request has new clients, which read the credentials again.
    """
    LATER = "later"
    """The error may pass: the same request may succeed after a while."""


MISSING_QUEUE: Final = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
"""The codes that say that a queue does not exist."""
ACCESS_DENIED: Final = ("AccessDenied", "AccessDeniedException")
"""The codes that say that these credentials lack a permission."""
TIMEOUTS: Final = ("ConnectTimeoutError", "ReadTimeoutError", "SendTimeout")
"""The errors that say that no answer came in time."""

_KEYS: Final = f"{SQS_KEY.variable} and {SQS_SECRET.variable}"
_NO_ANSWER: Final = (
    "no answer came: open port 443 to SQS in the security group, and give the subnet a NAT gateway "
    "or a VPC endpoint for SQS"
)
_FOREIGN: Final = (
    "another program answers in place of AWS: correct HTTPS_PROXY or add the host to NO_PROXY; "
    f"correct {SQS_ENDPOINT_URL.variable}, if it is set"
)
_KMS_DENIED: Final = (
    "allow kms:GenerateDataKey and kms:Decrypt on the queue's KMS key to both roles, also in the "
    "policy of the key itself"
)
_NO_PROFILE: Final = (
    "give the machine an instance profile, or set the tool right that AWS_PROFILE names"
)
_MACHINES_CLOCK: Final = "set the clock of this machine: sudo chronyc makestep"

ErrorCodes: TypeAlias = tuple[tuple[str, ...], "Scope | None", str]
"""Codes of AWS and names of botocore's errors, their scope, and the remedy."""

_CODES: Final[Sequence[ErrorCodes]] = (
    ((
        "BatchEntryIdsNotDistinct", "BatchRequestTooLong", "EmptyBatchRequest",
        "InvalidAttributeName", "InvalidAttributeValue", "InvalidBatchEntryId", "InvalidIdFormat",
        "InvalidMessageContents", "InvalidParameterCombination", "InvalidParameterValue",
        "MessageNotInflight", "MessageTooLong", "MissingParameter", "ReceiptHandleIsInvalid",
        "TooManyEntriesInBatchRequest", "ValidationError", "ValidationException",
    ), Scope.MESSAGE, ""),
    ((
        *ACCESS_DENIED, *MISSING_QUEUE, "NonExistentQueue", "QueueNameExists",
        "ResourceNotFoundException",
    ), Scope.QUEUE, ""),
    (("InvalidAddress", "UnsupportedOperation"), Scope.QUEUE,
        f"correct the queue's URL in {QUEUES.variable}"),
    (("KMS.AccessDeniedException", "KmsAccessDenied"), Scope.QUEUE, _KMS_DENIED),
    ((
        "KMS.DisabledException", "KMS.InvalidKeyUsageException", "KMS.InvalidStateException",
        "KMS.NotFoundException", "KMS.OptInRequired", "KmsDisabled", "KmsInvalidKeyUsage",
        "KmsInvalidState", "KmsNotFound", "KmsOptInRequired",
    ), Scope.QUEUE,
        "enable the queue's KMS key again or cancel its deletion, or set another KmsMasterKeyId"),
    ((
        "NoCredentialsError", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
    ), Scope.EVERYBODY,
        ("give the environment an instance profile that allows sqs:SendMessage, on a worker also "
        "sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility, or set "
        f"{_KEYS}")),
    (("PartialCredentialsError",), Scope.EVERYBODY, f"set both {_KEYS}, or neither"),
    (("CredentialRetrievalError",), Scope.EVERYBODY, _NO_PROFILE),
    (("MetadataRetrievalError",), Scope.LATER, _NO_PROFILE),
    ((
        "SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "SSOError",
        "LoginTokenLoadError", "LoginRefreshRequired",
    ), Scope.EVERYBODY,
        "the login has ended: aws sso login, with --profile and the name in AWS_PROFILE"),
    (("ExpiredToken", "ExpiredTokenException", "RuntimeError"), Scope.EVERYBODY,
        (f"the credentials have expired: set new ones with {SQS_TOKEN.variable}, or remove all "
        f"three for the instance profile; if they are new, {_MACHINES_CLOCK}")),
    ((
        "AuthFailure", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSecurity",
        "UnrecognizedClient", "UnrecognizedClientException",
    ), Scope.EVERYBODY,
        f"AWS knows no such access key: correct {_KEYS}, or remove both for the instance profile"),
    ((
        "IncompleteSignature", "InvalidSignatureException", "SignatureDoesNotMatch",
    ), Scope.EVERYBODY,
        f"correct {_KEYS}, which belong together; if they are right, {_MACHINES_CLOCK}"),
    (("RequestExpired", "RequestTimeTooSkewed"), Scope.EVERYBODY, _MACHINES_CLOCK),
    (("OptInRequired",), Scope.EVERYBODY,
        f"enable the region for the account, or correct {SQS_REGION.variable}"),
    (("KMS.ThrottlingException", "KmsThrottled"), Scope.LATER,
        ("KMS takes no more requests for now: wait a minute, and raise "
        "KmsDataKeyReusePeriodSeconds of the queue")),
    ((
        "OverLimit", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
        "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequestsException",
    ), Scope.LATER,
        ("the account makes too many requests: wait a minute; if that happens often, send in "
        "batches with schedule_many, or ask AWS for a higher quota")),
    ((
        "InternalError", "InternalFailure", "ServiceUnavailable", "500", "502", "503", "504",
    ), Scope.LATER,
        "AWS itself fails: see https://health.aws.amazon.com, and try again in a minute"),
    (("PurgeQueueInProgress",), Scope.LATER, ""),
    (("QueueDeletedRecently",), Scope.LATER, "wait a minute: the queue was deleted just now"),
    (("ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"), Scope.LATER,
        _NO_ANSWER),
    (("SendTimeout",), Scope.LATER,
        f"{_NO_ANSWER}; {SEND_TIMEOUT.variable} is the longest wait"),
    (("EndpointConnectionError",), Scope.LATER,
        ("see that this machine reaches the host, and that the region is right: "
        f"{SQS_REGION.variable}")),
    (("SSLError",), Scope.LATER,
        ("the certificate is not AWS's: name that of your proxy in AWS_CA_BUNDLE, or correct "
        f"{SQS_ENDPOINT_URL.variable}")),
    (("ProxyConnectionError",), Scope.LATER,
        "the proxy does not answer: correct HTTPS_PROXY, or remove it"),
    (("InvalidProxiesConfigError",), Scope.LATER, "correct HTTPS_PROXY, or remove it"),
    (("InvalidEndpointConfigurationError",), Scope.LATER, f"correct {SQS_ENDPOINT_URL.variable}"),
    (("ProfileNotFound", "ConfigNotFound", "ConfigParseError"), Scope.LATER,
        "correct AWS_PROFILE, or remove it: aws configure list-profiles shows the names"),
    (("NoRegionError", "InvalidRegionError"), Scope.LATER,
        f"set {SQS_REGION.variable}, such as eu-west-1"),
    ((
        "AttributeError", "ResponseParserError", "UnexpectedAnswer", "UnicodeDecodeError",
    ), Scope.LATER, _FOREIGN),
    (("400", "401", "403", "404", "405"), None, _FOREIGN),
)  # fmt: skip

SCOPES: Final[Mapping[str, Scope]] = {
    code: scope for codes, scope, _ in _CODES if scope for code in codes
}
"""The scope of each error code, in the spellings of both protocols."""

REMEDIES: Final[Mapping[str, str]] = {code: remedy for codes, _, remedy in _CODES for code in codes}
"""The remedy for each error code of AWS, and for each error of botocore by its name."""

DENIALS: Final[Mapping[str, str]] = {
    "kms:": _KMS_DENIED,
    "explicit deny in a service control policy": "the organization denies it: ask who administers "
    "the AWS organization for {permission} in this region",
    "explicit deny": "a policy denies it explicitly: correct that of the queue, the permissions "
    "boundary of the role, or the VPC endpoint",
    "VPC endpoint policy": "allow {permission} in the policy of the VPC endpoint for SQS",
}
"""The remedies for a denial, by words of AWS's message.

https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
"""
