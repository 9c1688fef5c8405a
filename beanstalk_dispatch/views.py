"""The dispatcher: aws-sqsd's POST ↔ a run. Outcome → status is one table.

And the backlog: a scaler's GET ↔ what waits in the queues.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import SuspiciousOperation
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException, UnreadablePostError
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt

from .conf import CORE, Config, get_config, values_of
from .conf.variables import QUEUES, TRUSTED_PEERS, WORKER
from .consumers.endpoint import draining, holding, trusted_peers
from .consumers.endpoint.sqsd import DOCTOR_KEY, MESSAGE_ID, delivery_from_meta, printable
from .exceptions import ConfigurationError, UnknownFunction
from .logging.log_lines import joined, quoted, quoted_error
from .logging.throttle import THROTTLE
from .messages.delivery import Delivery
from .messages.outcomes import Outcome, Result
from .process import clock
from .running import pipeline
from .running.consumer import DELAYED_COPIES
from .running.run import Run
from .running.unrun_receives import UNRUN
from .sqs.backlog import BACKLOG, Backlog, public_problem, queue_names

logger = logging.getLogger("beanstalk_dispatch.endpoint")

# What may be different a moment later, because of another process, of a file, or of a cache.
_HELD: Final[Mapping[Outcome, holding.Patience]] = {
    Outcome.RUNNING: holding.FOR_ONE_MESSAGE,
    Outcome.BAD_SIGNATURE: holding.FOR_ONE_MESSAGE,
    Outcome.DRAINING: holding.FOR_ALL_MESSAGES,
    Outcome.UNAVAILABLE: holding.FOR_ALL_MESSAGES,
}


View = Callable[[HttpRequest], HttpResponse]


def _for_machines(view: View) -> View:
    """A view without CSRF protection and login, which answers 500 if the configuration is wrong."""

    @csrf_exempt
    @login_not_required
    @functools.wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        try:
            return view(request)
        except ConfigurationError as exc:
            if (repeated := THROTTLE.repeated("configuration")) is not None:
                logger.error("refused status=500 reason=configuration%s error=%s", repeated, exc)
            _hold_unless_configured(request)
            return _error_response(500, "the worker's configuration is wrong; see its log")

    return answer


def _hold_unless_configured(request: HttpRequest) -> None:
    """Hold the answer to the daemon's POST while the configuration is wrong.

    A stranger's is not held: on a web process that would keep its threads from visitors.
    """
    values, delivery = values_of(CORE), delivery_from_meta(request.META)
    may_be_worker = values[WORKER] or any(WORKER.variable in each for each in values.problems)
    if not (may_be_worker and delivery.message_id) or draining.is_stopping():
        return
    if trusted_peers.refusal(request.META, values[TRUSTED_PEERS]) is None:
        holding.hold(delivery.receive_count, holding.FOR_ALL_MESSAGES, threads=draining.threads())


@_for_machines
def dispatcher(request: HttpRequest) -> HttpResponse:
    """Run the message in the body and answer so that SQS keeps or deletes it."""
    config = get_config()
    untrusted = trusted_peers.refusal(request.META, config.trusted_peers)
    if not config.worker:
        if not untrusted:  # anyone else's request says nothing of the daemon
            _log_not_a_worker(request)
        return _error_response(404, "not found")
    if untrusted:
        if (repeated := THROTTLE.repeated("untrusted-peer")) is not None:
            logger.warning("refused status=403 reason=untrusted-peer%s: %s", repeated, untrusted)
        return _error_response(403, "forbidden")
    if request.method != "POST":
        return _wrong_method("POST")
    try:
        body = request.body
    except (SuspiciousOperation, UnreadablePostError, RawPostDataException, ValueError) as exc:
        # ValueError: a Content-Length that is not a number, from a server that let it pass
        reason, message_id = str(exc) or type(exc).__name__, request.META.get(MESSAGE_ID)
        logger.error("refused id=%s status=400 reason=%r", quoted(printable(message_id)), reason)
        return _error_response(400, "the body cannot be read")
    if DOCTOR_KEY in request.META:
        return JsonResponse({DOCTOR_KEY: True})
    return _make_response(_run_or_hold(delivery_from_meta(request.META, body), config))


@_for_machines
def backlog(request: HttpRequest) -> HttpResponse:
    """What waits in each queue, as JSON, and how many processes that needs."""
    response = _answer_backlog(request)
    response["Cache-Control"] = "no-store"
    return response


def keep_out_of_atomic_requests() -> None:
    """Run both views without a transaction, whatever ATOMIC_REQUESTS says of a database.

    A task has its own transactions, or none. The backlog needs no database.
    https://docs.djangoproject.com/en/stable/topics/db/transactions/#tying-transactions-to-http-requests
    """
    for alias in connections:
        for view in (dispatcher, backlog):
            transaction.non_atomic_requests(using=alias)(view)


def _log_not_a_worker(request: HttpRequest) -> None:
    if not delivery_from_meta(request.META).message_id:
        return
    if (repeated := THROTTLE.repeated("not-a-worker")) is not None:
        logger.error(
            "refused status=404 reason=not-a-worker%s: the daemon posts here, but %s is not True; "
            "messages go to the dead-letter queue",
            repeated,
            WORKER.variable,
        )


def _run_or_hold(delivery: Delivery, config: Config) -> Result:
    run = Run(delivery, config, DELAYED_COPIES)
    result = _run_unless_draining(run)
    patience = _HELD.get(result.outcome)
    if patience and isinstance(run.exception, UnknownFunction):  # other tasks can run
        patience = holding.FOR_ONE_MESSAGE
    if patience is None or draining.is_stopping():
        return result
    began = clock.monotonic()
    if not holding.hold(delivery.receive_count, patience, threads=draining.threads()):
        return result
    if delivery.waited is not None:  # the proxy has waited for as long
        waited = delivery.waited + clock.monotonic() - began
        delivery = replace(delivery, waited=waited)
    return _run_unless_draining(Run(delivery, config, DELAYED_COPIES))


def _run_unless_draining(run: Run) -> Result:
    if reason := draining.reason(run.config):
        logger.warning("refused id=%s status=503 reason=%r", quoted(run.message_id), reason)
        UNRUN.note(run.delivery)
        return Result(outcome=Outcome.DRAINING, reason="draining")
    return pipeline.run_delivery(run)


def _make_response(result: Result) -> HttpResponse:
    status = result.status
    if status == 200:
        return HttpResponse(b"{}", content_type="application/json")
    return _error_response(status, "forbidden" if status == 403 else result.reason)


# --- the backlog -----------------------------------------------------------------------------


def _answer_backlog(request: HttpRequest) -> HttpResponse:
    config = get_config()
    if refusal := _backlog_refusal(request, config):
        return refusal
    if request.method not in {"GET", "HEAD"}:
        return _wrong_method("GET", "HEAD")
    if not queue_names(config):
        return _error_response(503, f"{QUEUES.variable} names no queue that a worker reads")
    found = BACKLOG.read(config)
    if found is None:
        return _error_response(503, "SQS has not answered yet")
    _log_problems(found)
    if not found.queues:
        return _error_response(
            503, f"no queue can be read: {public_problem(next(iter(found.problems.values())))}"
        )
    return JsonResponse(found.as_json())


def _backlog_refusal(request: HttpRequest, config: Config) -> HttpResponse | None:
    """The answer to a request that may not read the backlog.

    If a token is set, only a client that shows it may. Otherwise only the trusted peers of a worker
    may: they may do more, namely POST messages. On a web process an address proves nothing. A proxy
    that does not say whose request it passes on would make every visitor a trusted peer.
    """
    if config.backlog_token is None:
        if config.worker and trusted_peers.refusal(request.META, config.trusted_peers) is None:
            return None
        return _error_response(404, "not found")
    scheme, _, shown = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and constant_time_compare(shown.strip(), config.backlog_token):
        return None
    if (repeated := THROTTLE.repeated("backlog-token")) is not None:
        logger.warning("refused status=401 reason=backlog-token%s", repeated)
    response = _error_response(401, "a bearer token is needed")
    response["WWW-Authenticate"] = "Bearer"
    return response


def _log_problems(found: Backlog) -> None:
    if found.problems and (repeated := THROTTLE.repeated("backlog")) is not None:
        logger.error(
            "backlog unknown queues=%s%s error=%s",
            quoted(joined(found.problems)),
            repeated,
            quoted_error(next(iter(found.problems.values()))),
        )


# --- answers ---------------------------------------------------------------------------------


def _wrong_method(*accepted: str) -> HttpResponse:
    response = _error_response(405, f"only {accepted[0]} is accepted")
    response["Allow"] = ", ".join(accepted)
    return response


def _error_response(status: int, message: str) -> HttpResponse:
    response = JsonResponse({"error": status, "message": message}, status=status)
    # Django's django.request logger would add a line of its own, and mail every 500 to ADMINS.
    response._has_been_logged = True  # type: ignore[attr-defined] # noqa: SLF001
    return response
