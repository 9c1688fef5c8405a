"""The dispatcher: aws-sqsd's POST ↔ execution. Outcome → status is one table."""

from __future__ import annotations

import logging
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import SuspiciousOperation
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from .conf import SETTINGS, Config, get_config
from .delivery import Delivery
from .endpoint import draining, holding
from .endpoint import trusted_peers as peers
from .endpoint.sqsd import DOCTOR_KEY, delivery_from_meta
from .exceptions import ConfigurationError
from .execution import executor as execution
from .log_lines import REFUSALS, quoted
from .outcomes import Outcome, Result

logger = logging.getLogger("beanstalk_dispatch.endpoint")

# What may be different a moment later, because of another process or of a file.
_HELD: Final = frozenset({Outcome.RUNNING, Outcome.DRAINING})


@csrf_exempt
@login_not_required
def dispatcher(request: HttpRequest) -> HttpResponse:
    """Run the message in the body and answer so that SQS keeps or deletes it."""
    try:
        return _dispatch(request)
    except ConfigurationError as exc:
        if (repeated := REFUSALS.repeated("configuration")) is not None:
            logger.error("refused status=500 reason=configuration%s error=%s", repeated, exc)
        return _error(500, "the worker's configuration is wrong; see its log")


def keep_out_of_atomic_requests() -> None:
    """Run the dispatcher without a transaction, whatever ATOMIC_REQUESTS says of a database.

    A task has its own transactions, or none.
    https://docs.djangoproject.com/en/stable/topics/db/transactions/#tying-transactions-to-http-requests
    """
    for alias in connections:
        transaction.non_atomic_requests(using=alias)(dispatcher)


def _dispatch(request: HttpRequest) -> HttpResponse:
    config = get_config()
    untrusted = peers.refusal(request.META, config)
    if not config.worker:
        if not untrusted:  # anyone else's request says nothing of the daemon
            _log_not_a_worker(request)
        return _error(404, "not found")
    if untrusted:
        if (repeated := REFUSALS.repeated("untrusted-peer")) is not None:
            logger.warning("refused status=403 reason=untrusted-peer%s: %s", repeated, untrusted)
        return _error(403, "forbidden")
    if request.method != "POST":
        response = _error(405, "only POST is accepted")
        response["Allow"] = "POST"
        return response
    delivery = delivery_from_meta(request.META)
    try:
        body = request.body
    except (SuspiciousOperation, UnreadablePostError, RawPostDataException, ValueError) as exc:
        # ValueError: a Content-Length that is not a number, from a server that let it pass
        reason = str(exc) or type(exc).__name__
        logger.error("refused id=%s status=400 reason=%r", quoted(delivery.message_id), reason)
        return _error(400, "the body cannot be read")
    if DOCTOR_KEY in request.META:
        return JsonResponse({DOCTOR_KEY: True})
    return _answer(_run(body, delivery, config))


def _log_not_a_worker(request: HttpRequest) -> None:
    if not delivery_from_meta(request.META).message_id:
        return
    if (repeated := REFUSALS.repeated("not-a-worker")) is not None:
        logger.error(
            "refused status=404 reason=not-a-worker%s: the daemon posts here, but %s is not True; "
            "messages go to the dead-letter queue",
            repeated,
            SETTINGS["worker"].variable,
        )


def _run(body: bytes, delivery: Delivery, config: Config) -> Result:
    result = _run_unless_draining(body, delivery, config)
    if result.outcome not in _HELD or draining.is_stopping():
        return result
    if not holding.hold(delivery.receive_count, threads=draining.threads()):
        return result
    return _run_unless_draining(body, delivery, config)


def _run_unless_draining(body: bytes, delivery: Delivery, config: Config) -> Result:
    if reason := draining.reason(config):
        logger.warning("refused id=%s status=503 reason=%r", quoted(delivery.message_id), reason)
        return Result(outcome=Outcome.DRAINING, reason="draining")
    return execution.run(body, delivery)


def _answer(result: Result) -> HttpResponse:
    status = result.status
    if status == 200:
        return HttpResponse(b"{}", content_type="application/json")
    return _error(status, "forbidden" if status == 403 else result.reason)


def _error(status: int, message: str) -> HttpResponse:
    response = JsonResponse({"error": status, "message": message}, status=status)
    # Django's django.request logger would add a line of its own, and mail every 500 to ADMINS.
    response._has_been_logged = True  # type: ignore[attr-defined] # noqa: SLF001
    return response
