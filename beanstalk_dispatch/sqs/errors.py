"""Errors of SQS: their scope, and the errors of this package in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.conf.variables import (
    CREATE_QUEUES,
    QUEUES,
    SQS_ENDPOINT_URL,
)
from beanstalk_dispatch.exceptions import SendError, UnknownQueue

from .error_codes import (
    ACCESS_DENIED,
    DENIALS,
    MISSING_QUEUE,
    REMEDIES,
    SCOPES,
    TIMEOUTS,
    Scope,
)

_MAX_MESSAGE_CHARACTERS: Final = 300
_QUERY_PREFIX: Final = "AWS.SimpleQueueService."
"""The prefix of some codes of SQS's older protocol.

botocore reports these codes if an answer has them.
"""


_SCOPES_BY_STATUS: Final[Mapping[int, Scope]] = {
    400: Scope.MESSAGE, 413: Scope.MESSAGE, 422: Scope.MESSAGE,
    401: Scope.QUEUE, 403: Scope.QUEUE, 404: Scope.QUEUE,
}  # fmt: skip
"""The scope of each HTTP status for codes that SCOPES does not have, such as those of a proxy.

The scope of any other status is LATER.
"""


class UnexpectedAnswer(RuntimeError):
    """The error of an answer that is not one of AWS, such as the page of a proxy."""


def member(answer: Mapping[str, Any], name: str) -> Any:
    """Return a member that every answer of SQS to a request has.

    Raise UnexpectedAnswer if it is missing: boto3 takes a page for an answer without any members.
    """
    try:
        return answer[name]
    except KeyError:
        raise UnexpectedAnswer(f"the answer has no {name}") from None


def refuse_page(answer: Mapping[str, Any]) -> None:
    """Raise UnexpectedAnswer for a page. SQS's own answer may have no members either."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if "html" in headers.get("content-type", ""):
        raise UnexpectedAnswer("the answer is a page")


def boto_errors() -> tuple[type[Exception], ...]:
    """Return the errors that a request of boto3 raises."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as boto3
    from botocore.parsers import ResponseParserError  # noqa: PLC0415 - as boto3

    # RuntimeError: for credentials that were refreshed and are still expired. The last two: for a
    # page that is not in UTF-8, and for JSON that is not an object.
    return (
        BotoCoreError, ClientError, RuntimeError, ResponseParserError,
        UnicodeDecodeError, AttributeError,
    )  # fmt: skip


def client_errors() -> tuple[type[Exception], ...]:
    """Return the errors that the making of a client raises.

    botocore validates AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL and similar variables.
    """
    return (*boto_errors(), ValueError)


def is_missing_queue(exc: Exception) -> bool:
    """Return True if botocore's error says that the queue does not exist."""
    return error_code(exc) in MISSING_QUEUE


def is_access_denied(exc: Exception) -> bool:
    """Return True if botocore's error says that these credentials lack a permission."""
    return error_code(exc) in ACCESS_DENIED


def scope_of(exc: BaseException) -> Scope:
    """Return the scope of botocore's error, or of this package's error that was raised from it."""
    if isinstance(exc, UnknownQueue):
        return Scope.QUEUE
    cause = exc.__cause__ if isinstance(exc, SendError) else exc
    if not isinstance(cause, boto_errors()):
        return Scope.LATER
    response: Mapping[str, Any] = getattr(cause, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return _scope_of_code(error_code(cause)) or _SCOPES_BY_STATUS.get(status, Scope.LATER)


def scope_of_entry(failure: Mapping[str, Any]) -> Scope:
    """Return the scope of the failure of one entry of a batch.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_BatchResultErrorEntry.html
    """
    unknown = Scope.MESSAGE if failure["SenderFault"] else Scope.LATER
    return _scope_of_code(str(failure["Code"])) or unknown


def _scope_of_code(code: str) -> Scope | None:
    return SCOPES.get(code) or SCOPES.get(code.removeprefix(_QUERY_PREFIX))


def is_timeout(exc: Exception) -> bool:
    """Return True if the error says that no answer came in time."""
    return error_code(exc) in TIMEOUTS


def remedy_of(exc: Exception, operation: str = "") -> str:
    """Return the remedy for botocore's error; empty if only AWS's own message can say it."""
    if not is_access_denied(exc):
        return REMEDIES.get(error_code(exc), "")
    message, called = str(exc), operation or str(getattr(exc, "operation_name", ""))
    denial = next((text for words, text in DENIALS.items() if words in message), "")
    if called == "GetQueueUrl" and not denial:
        return (
            "Elastic Beanstalk's roles do not allow it. Set the queue's URL or ARN in "
            f"{QUEUES.variable}"
        )
    denial = denial or (
        "allow {permission} on the queue, and attach the policy to this role: "
        "python manage.py beanstalk_eb writes it"
    )
    return denial.format(permission=f"sqs:{called.removesuffix('Batch')}")


def missing_permission(exc: BaseException) -> str | None:
    """Return the IAM action that SQS denied, such as ``sqs:GetQueueAttributes``; or None.

    ``exc`` is this package's error. A batch needs the permission of its single request:
    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html
    """
    cause = exc.__cause__
    if not isinstance(cause, Exception) or not is_access_denied(cause):
        return None
    operation: str = getattr(cause, "operation_name", "")
    return f"sqs:{operation.removesuffix('Batch')}"


def failed_on_missing_queue(exc: BaseException) -> bool:
    """Return True if this package's error was raised because the queue does not exist."""
    cause = exc.__cause__
    return isinstance(exc, UnknownQueue) or (
        isinstance(cause, Exception) and is_missing_queue(cause)
    )


def send_error(operation: str, address: QueueAddress, exc: Exception) -> SendError:
    """Return the SendError for botocore's error ``exc``, with advice if there is any.

    Raise it ``from exc``, which shows no secret from then on.
    """
    code = error_code(exc)
    advice = ""
    if code in MISSING_QUEUE:
        advice = f"; correct the region, account and name of its URL in {QUEUES.variable}"
        if get_config().create_queues:
            advice += f"; {CREATE_QUEUES.variable} creates only what is given by name"
    elif code == "EndpointConnectionError" and get_config().sqs_endpoint_url:
        advice = f"; start that server, or correct {SQS_ENDPOINT_URL.variable}"
    elif _needs_somebody(exc) and (remedy := remedy_of(exc, operation)):
        advice = f"; {remedy}"
    reason = first_line(exc).rstrip(".") if advice else first_line(exc)
    error = SendError(f"{operation} on {address.name}: {code}: {reason}{advice}")
    _remove_secrets(exc)
    return error


def _needs_somebody(exc: Exception) -> bool:
    """Return True if the error lasts until somebody changes something."""
    return scope_of(exc) in {Scope.QUEUE, Scope.EVERYBODY} or isinstance(exc, UnexpectedAnswer)


def client_error(address: QueueAddress, exc: Exception) -> SendError:
    """Return the SendError for ``exc``, because of which no client could be made."""
    remedy = remedy_of(exc)
    error = SendError(
        f"cannot make a boto3 client for {address.name}: {error_code(exc)}: {first_line(exc)}"
        f"{remedy and f'; {remedy}'}"
    )
    _remove_secrets(exc)
    return error


def _remove_secrets(exc: Exception) -> None:
    """Remove the parts of botocore's error that may show credentials or a message.

    The frames in its traceback, and in those of the errors that it came from, have the whole
    request as locals. Sentry and Django's error pages show locals.
    """
    exc.__traceback__ = exc.__cause__ = exc.__context__ = None
    exc.args = (first_line(exc),)


def first_line(message: object) -> str:
    """Return the first line of AWS's message.

    The further lines of a signature error repeat the whole request, session token included.
    """
    return str(message or "").strip().partition("\n")[0][:_MAX_MESSAGE_CHARACTERS]


def error_code(exc: Exception) -> str:
    """Return AWS's error code, or the exception's name if there is no response."""
    response: Mapping[str, Any] = getattr(exc, "response", None) or {}
    return str(response.get("Error", {}).get("Code", type(exc).__name__))
