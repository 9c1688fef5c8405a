"""Turns botocore's errors into this package's errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.variables import (
    CREATE_QUEUES,
    QUEUES,
    SQS_ENDPOINT_URL,
    SQS_KEY,
    SQS_SECRET,
)
from beanstalk_dispatch.exceptions import SendError, UnknownQueue
from beanstalk_dispatch.queue_address import QueueAddress

_MISSING_QUEUE_CODES: Final = frozenset({
    "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue",
})  # fmt: skip
# A new client reads the credentials again, so it may succeed after these.
_STALE_CREDENTIALS_CODES: Final = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException",
    "NoCredentialsError",
    "RuntimeError",  # botocore raises it for credentials that were refreshed and are still expired
})  # fmt: skip
_TIMEOUT_CODES: Final = frozenset({"ConnectTimeoutError", "ReadTimeoutError", "SendTimeout"})
_ACCESS_DENIED_CODES: Final = frozenset({"AccessDenied", "AccessDeniedException"})
_MAX_MESSAGE_CHARACTERS: Final = 300
_FIRST_CLIENT_ERROR: Final = 400
_FIRST_SERVER_ERROR: Final = 500


def boto_errors() -> tuple[type[Exception], ...]:
    """The errors that a request of boto3 raises."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as boto3

    return BotoCoreError, ClientError, RuntimeError  # the last: see _STALE_CREDENTIALS_CODES


def client_errors() -> tuple[type[Exception], ...]:
    """The errors that making a client raises.

    botocore validates AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL and similar variables.
    """
    return (*boto_errors(), ValueError)


def is_missing_queue(exc: Exception) -> bool:
    """Whether botocore's error says that the queue does not exist."""
    return error_code(exc) in _MISSING_QUEUE_CODES


def is_access_denied(exc: Exception) -> bool:
    """Whether botocore's error says that these credentials lack a permission."""
    return error_code(exc) in _ACCESS_DENIED_CODES


def has_stale_credentials(exc: Exception) -> bool:
    """Whether botocore's error says that the client's credentials are missing or expired."""
    return error_code(exc) in _STALE_CREDENTIALS_CODES


def is_refusal(exc: BaseException | None) -> bool:
    """Whether botocore's error is an answer of SQS that blames the request, not SQS itself."""
    response: Mapping[str, Any] = getattr(exc, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return bool(_FIRST_CLIENT_ERROR <= status < _FIRST_SERVER_ERROR)


def is_timeout(exc: Exception) -> bool:
    """Whether no answer came in time."""
    return error_code(exc) in _TIMEOUT_CODES


def missing_permission(exc: BaseException) -> str | None:
    """The IAM action that SQS denied, such as ``sqs:GetQueueAttributes``; None for other errors.

    ``exc`` is this package's error. A batch needs the permission of its single request:
    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html
    """
    cause = exc.__cause__
    if not isinstance(cause, Exception) or not is_access_denied(cause):
        return None
    operation: str = getattr(cause, "operation_name", "")
    return f"sqs:{operation.removesuffix('Batch')}"


def failed_on_missing_queue(exc: BaseException) -> bool:
    """Whether this package's error was raised because the queue does not exist."""
    cause = exc.__cause__
    return isinstance(exc, UnknownQueue) or (
        isinstance(cause, Exception) and is_missing_queue(cause)
    )


def send_error(operation: str, address: QueueAddress, exc: Exception) -> SendError:
    """The SendError for botocore's error ``exc``, with advice where there is any.

    Raise it ``from exc``, which shows no secret from then on.
    """
    code = error_code(exc)
    advice = ""
    if code in _ACCESS_DENIED_CODES and operation == "GetQueueUrl":
        advice = (
            "; Elastic Beanstalk's roles do not allow it. Set the queue's URL or ARN in "
            f"{QUEUES.variable}"
        )
    elif code == "NoCredentialsError":
        advice = (
            "; give the environment an instance profile that allows sqs:SendMessage, on a worker "
            "also sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility, or set "
            f"{SQS_KEY.variable} and {SQS_SECRET.variable}"
        )
    elif code in _MISSING_QUEUE_CODES:
        advice = (
            f"; create the queue, or correct its URL in {QUEUES.variable}; "
            f"{CREATE_QUEUES.variable} creates only what is given by name"
        )
    elif code == "EndpointConnectionError" and get_config().sqs_endpoint_url:
        advice = f"; start that server, or correct {SQS_ENDPOINT_URL.variable}"
    reason = first_line(exc).rstrip(".") if advice else first_line(exc)
    error = SendError(f"{operation} on {address.name}: {code}: {reason}{advice}")
    _remove_secrets(exc)
    return error


def client_error(address: QueueAddress, exc: Exception) -> SendError:
    """The SendError for ``exc``, because of which no client could be made."""
    error = SendError(
        f"cannot make a boto3 client for {address.name}: {error_code(exc)}: {first_line(exc)}"
    )
    _remove_secrets(exc)
    return error


def _remove_secrets(exc: Exception) -> None:
    """Cut off what of botocore's error may show credentials or a message.

    The frames in its traceback, and in those of the errors that it came from, have the whole
    request as locals. Sentry and Django's error pages show locals.
    """
    exc.__traceback__ = exc.__cause__ = exc.__context__ = None
    exc.args = (first_line(exc),)


def first_line(message: object) -> str:
    """The first line of AWS's message.

    The further lines of a signature error repeat the whole request, session token included.
    """
    return str(message or "").strip().partition("\n")[0][:_MAX_MESSAGE_CHARACTERS]


def error_code(exc: Exception) -> str:
    """AWS's error code, or the exception's name where there is no response."""
    response: Mapping[str, Any] = getattr(exc, "response", None) or {}
    return str(response.get("Error", {}).get("Code", type(exc).__name__))
