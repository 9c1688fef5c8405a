"""The remedy for each error of AWS, for the doctor and for the errors of this package.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from beanstalk_dispatch.conf.variables import (
    QUEUES,
    SEND_TIMEOUT,
    SQS_ENDPOINT_URL,
    SQS_KEY,
    SQS_REGION,
    SQS_SECRET,
    SQS_TOKEN,
)

_KEYS: Final = f"{SQS_KEY.variable} and {SQS_SECRET.variable}"
_NO_ANSWER: Final = (
    "no answer came: open port 443 to SQS in the security group, and give the subnet a NAT gateway "
    "or a VPC endpoint for SQS"
)
_LOGIN: Final = "the login has ended: aws sso login, with --profile and the name in AWS_PROFILE"
_LATER: Final = "AWS itself fails: see https://health.aws.amazon.com, and try again in a minute"
_WRONG_KEY: Final = (
    f"correct {_KEYS}, which belong together; if they are right, set the clock of this machine: "
    "sudo chronyc makestep"
)
_EXPIRED: Final = (
    f"the credentials have expired: set new ones with {SQS_TOKEN.variable}, or remove all "
    "three for the instance profile; if they are new, set the clock of this machine: "
    "sudo chronyc makestep"
)
_NO_KEY: Final = (
    f"AWS knows no such access key: correct {_KEYS}, or remove both for the instance profile"
)
_FOREIGN: Final = (
    "another program answers in place of AWS: correct HTTPS_PROXY or add the host to NO_PROXY; "
    f"correct {SQS_ENDPOINT_URL.variable}, if it is set"
)
_SLOWER: Final = (
    "the account makes too many requests: wait a minute; if that happens often, send in batches "
    "with schedule_many, or ask AWS for a higher quota"
)
_KMS_DENIED: Final = (
    "allow kms:GenerateDataKey and kms:Decrypt on the queue's KMS key to both roles, also in the "
    "policy of the key itself"
)
_KMS_UNUSABLE: Final = (
    "enable the queue's KMS key again or cancel its deletion, or set another KmsMasterKeyId"
)
_NO_ROLE: Final = (
    "give the environment an instance profile that allows sqs:SendMessage, on a worker also "
    f"sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility, or set {_KEYS}"
)
_DENIED: Final = (
    "allow {permission} on the queue, and attach the policy to this role: "
    "python manage.py beanstalk_eb writes it"
)

REMEDIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("KMS.AccessDeniedException", "KmsAccessDenied"), _KMS_DENIED),
    **dict.fromkeys((
        "KMS.DisabledException", "KMS.InvalidKeyUsageException", "KMS.InvalidStateException",
        "KMS.NotFoundException", "KMS.OptInRequired", "KmsDisabled", "KmsInvalidKeyUsage",
        "KmsInvalidState", "KmsNotFound", "KmsOptInRequired",
    ), _KMS_UNUSABLE),
    **dict.fromkeys(
        ("KMS.ThrottlingException", "KmsThrottled"),
        "KMS takes no more requests for now: wait a minute, and raise "
        "KmsDataKeyReusePeriodSeconds of the queue",
    ),
    **dict.fromkeys((
        "OverLimit", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
        "ThrottledException", "Throttling", "ThrottlingException", "TooManyRequestsException",
    ), _SLOWER),
    **dict.fromkeys((
        "NoCredentialsError", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
    ), _NO_ROLE),
    "PartialCredentialsError": f"set both {_KEYS}, or neither",
    **dict.fromkeys((
        "CredentialRetrievalError", "MetadataRetrievalError",
    ), "give the machine an instance profile, or set the tool right that AWS_PROFILE names"),
    **dict.fromkeys((
        "SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "SSOError",
        "LoginTokenLoadError", "LoginRefreshRequired",
    ), _LOGIN),
    **dict.fromkeys(
        ("ProfileNotFound", "ConfigNotFound", "ConfigParseError"),
        "correct AWS_PROFILE, or remove it: aws configure list-profiles shows the names",
    ),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "RuntimeError"), _EXPIRED),
    **dict.fromkeys((
        "AuthFailure", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSecurity",
        "UnrecognizedClient", "UnrecognizedClientException",
    ), _NO_KEY),
    **dict.fromkeys((
        "IncompleteSignature", "InvalidSignatureException", "SignatureDoesNotMatch",
    ), _WRONG_KEY),
    **dict.fromkeys(
        ("RequestExpired", "RequestTimeTooSkewed"),
        "set the clock of this machine: sudo chronyc makestep",
    ),
    "OptInRequired": f"enable the region for the account, or correct {SQS_REGION.variable}",
    **dict.fromkeys(
        ("NoRegionError", "InvalidRegionError"), f"set {SQS_REGION.variable}, such as eu-west-1"
    ),
    **dict.fromkeys(("ConnectTimeoutError", "ReadTimeoutError"), _NO_ANSWER),
    "SendTimeout": f"{_NO_ANSWER}; {SEND_TIMEOUT.variable} is the longest wait",
    "EndpointConnectionError": "see that this machine reaches the host, and that the region is "
    f"right: {SQS_REGION.variable}",
    "ConnectionClosedError": _NO_ANSWER,
    "SSLError": "the certificate is not AWS's: name that of your proxy in AWS_CA_BUNDLE, or "
    f"correct {SQS_ENDPOINT_URL.variable}",
    "ProxyConnectionError": "the proxy does not answer: correct HTTPS_PROXY, or remove it",
    "InvalidProxiesConfigError": "correct HTTPS_PROXY, or remove it",
    **dict.fromkeys((
        "ResponseParserError", "UnexpectedAnswer", "400", "401", "403", "404", "405",
    ), _FOREIGN),
    "InvalidEndpointConfigurationError": f"correct {SQS_ENDPOINT_URL.variable}",
    "QueueDeletedRecently": "wait a minute: the queue was deleted just now",
    **dict.fromkeys(
        ("InternalError", "InternalFailure", "ServiceUnavailable", "500", "502", "503", "504"),
        _LATER,
    ),
    **dict.fromkeys(
        ("InvalidAddress", "UnsupportedOperation"), f"correct the queue's URL in {QUEUES.variable}"
    ),
}  # fmt: skip
"""The remedy for each error code of AWS, and for each error of botocore by its name."""

_DENIALS: Final[Mapping[str, str]] = {
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


def remedy_for(code: str, message: str, *, operation: str = "", is_denied: bool = False) -> str:
    """Return what to do about an error of AWS; empty if only AWS's own message can say it."""
    if not is_denied:
        return REMEDIES.get(code, "")
    if operation == "GetQueueUrl" and not any(words in message for words in _DENIALS):
        return (
            "Elastic Beanstalk's roles do not allow it. Set the queue's URL or ARN in "
            f"{QUEUES.variable}"
        )
    found = next((text for words, text in _DENIALS.items() if words in message), _DENIED)
    return found.format(permission=f"sqs:{operation.removesuffix('Batch')}")
