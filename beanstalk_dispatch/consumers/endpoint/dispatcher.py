"""Answers aws-sqsd's POST: a request becomes a run, and its Result an HTTP status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import RawPostDataException, UnreadablePostError

from beanstalk_dispatch.conf import CORE, Config, get_config, values_of
from beanstalk_dispatch.conf.variables import TRUSTED_PEERS, WORKER
from beanstalk_dispatch.exceptions import UnknownFunction
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.logging.log_lines import quoted
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.outcomes import Outcome, Result
from beanstalk_dispatch.process import clock
from beanstalk_dispatch.running import pipeline
from beanstalk_dispatch.running.consumer import DelayedCopies
from beanstalk_dispatch.running.leases.worker_entry import WORKER_ENTRY
from beanstalk_dispatch.running.run import Run
from beanstalk_dispatch.running.unrun_receives import UNRUN

from . import draining, holding, trusted_peers
from .responses import error_response, wrong_method
from .sqsd import DOCTOR_KEY, MESSAGE_ID, delivery_from_meta, printable

logger = logging.getLogger("beanstalk_dispatch.endpoint")

# What may be different a moment later, because of another process, of a file, or of a cache.
_HELD: Final[Mapping[Outcome, holding.Patience]] = {
    Outcome.RUNNING: holding.FOR_ONE_MESSAGE,
    Outcome.DEFERRED: holding.FOR_ONE_MESSAGE,  # on a FIFO queue, where no copy waits
    Outcome.BAD_SIGNATURE: holding.FOR_ONE_MESSAGE,
    Outcome.DRAINING: holding.FOR_ALL_MESSAGES,
    Outcome.UNAVAILABLE: holding.FOR_ALL_MESSAGES,
}


class EndpointConsumer(DelayedCopies):
    """The endpoint as a run sees it."""

    children = CHILDREN

    def is_ending(self) -> bool:
        """Return True if the process takes no new task."""
        return bool(draining.reason(get_config()))


_ENDPOINT: Final = EndpointConsumer()


def dispatch(request: HttpRequest) -> HttpResponse:
    """Run the message in the body, and answer so that SQS keeps or deletes it."""
    config = get_config()
    untrusted = trusted_peers.refusal(request.META, config.trusted_peers)
    if not config.worker:
        if not untrusted:  # anyone else's request says nothing of the daemon
            _log_not_a_worker(request)
        return error_response(404, "not found")
    if untrusted:
        if (repeated := THROTTLE.repeated("untrusted-peer")) is not None:
            logger.warning("refused status=403 reason=untrusted-peer%s: %s", repeated, untrusted)
        return error_response(403, "forbidden")
    if request.method != "POST":
        return wrong_method("POST")
    try:
        body = request.body
    except (SuspiciousOperation, UnreadablePostError, RawPostDataException, ValueError) as exc:
        # ValueError: a Content-Length that is not a number, from a server that let it pass
        reason, message_id = str(exc) or type(exc).__name__, request.META.get(MESSAGE_ID)
        logger.error("refused id=%s status=400 reason=%r", quoted(printable(message_id)), reason)
        return error_response(400, "the body cannot be read")
    if DOCTOR_KEY in request.META:
        return JsonResponse({DOCTOR_KEY: True})
    if not WORKER_ENTRY.is_started:
        WORKER_ENTRY.start("endpoint", config, threads=draining.threads())
    return make_response(_run_or_hold(delivery_from_meta(request.META, body), config))


def hold_unless_configured(request: HttpRequest) -> None:
    """Hold the answer to the daemon's POST while the configuration is wrong.

    A stranger's is not held: on a web process that would keep its threads from visitors.
    """
    values, delivery = values_of(CORE), delivery_from_meta(request.META)
    may_be_worker = values[WORKER] or any(WORKER.variable in each for each in values.problems)
    if not (may_be_worker and delivery.message_id) or draining.is_stopping():
        return
    if trusted_peers.refusal(request.META, values[TRUSTED_PEERS]) is None:
        holding.hold(delivery.receive_count, holding.FOR_ALL_MESSAGES, threads=draining.threads())


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
    run = Run(delivery, config, _ENDPOINT)
    result = _run_unless_draining(run)
    patience = _HELD.get(result.outcome)
    if patience and isinstance(run.exception, UnknownFunction):  # other tasks can run
        patience = holding.FOR_ONE_MESSAGE
    if patience is None or result.is_acknowledged or draining.is_stopping():
        return result
    began = clock.monotonic()
    if not holding.hold(delivery.receive_count, patience, threads=draining.threads()):
        return result
    if delivery.waited is not None:  # the proxy has waited for as long
        waited = delivery.waited + clock.monotonic() - began
        delivery = replace(delivery, waited=waited)
    return _run_unless_draining(Run(delivery, config, _ENDPOINT))


def _run_unless_draining(run: Run) -> Result:
    draining.replace_if_spoiled()
    if reason := draining.reason(run.config):
        logger.warning("refused id=%s status=503 reason=%r", quoted(run.message_id), reason)
        UNRUN.note(run.delivery)
        return Result(outcome=Outcome.DRAINING, reason="draining")
    return pipeline.run_delivery(run)


def make_response(result: Result) -> HttpResponse:
    """Return the answer of the status that belongs to the outcome."""
    status = result.status
    if status == 200:
        return HttpResponse(b"{}", content_type="application/json")
    reason = result.reason.partition("; ")[0]  # 0.1 has answered it alone; advice is for the log
    return error_response(status, "forbidden" if status == 403 else reason)
