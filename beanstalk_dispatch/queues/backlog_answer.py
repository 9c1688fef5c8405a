"""Answers a scaler's GET: how much waits in the queues, and who may know it."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.variables import QUEUES
from beanstalk_dispatch.consumers.endpoint import trusted_peers
from beanstalk_dispatch.consumers.endpoint.responses import error_response, wrong_method
from beanstalk_dispatch.logging.log_lines import joined, quoted, quoted_error
from beanstalk_dispatch.logging.throttle import THROTTLE
from beanstalk_dispatch.sqs.backlog import BACKLOG, Backlog, public_problem

logger = logging.getLogger("beanstalk_dispatch.endpoint")


def answer(request: HttpRequest) -> HttpResponse:
    """Return the figures of the backlog as JSON, or the reason why there are none."""
    config = get_config()
    if refusal := _refusal(request, config):
        return refusal
    if request.method not in {"GET", "HEAD"}:
        return wrong_method("GET", "HEAD")
    if not config.work_queues:
        return error_response(503, f"{QUEUES.variable} names no queue that a worker reads")
    found = BACKLOG.read(config)
    if found is None:
        return error_response(503, "SQS has not answered yet")
    _log_problems(found)
    if not found.queues:
        return error_response(
            503, f"no queue can be read: {public_problem(next(iter(found.problems.values())))}"
        )
    return JsonResponse(found.as_json())


def _refusal(request: HttpRequest, config: Config) -> HttpResponse | None:
    """Return the answer to a request that may not read the backlog; None if it may.

    If a token is set, only a client that shows it may. Otherwise only the trusted peers of a worker
    may: they may do more, namely POST messages. On a web process an address proves nothing. A proxy
    that does not say whose request it passes on would make every visitor a trusted peer.
    """
    if config.backlog_token is None:
        if config.worker and trusted_peers.refusal(request.META, config.trusted_peers) is None:
            return None
        return error_response(404, "not found")
    scheme, _, shown = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and constant_time_compare(shown.strip(), config.backlog_token):
        return None
    if (repeated := THROTTLE.repeated("backlog-token")) is not None:
        logger.warning("refused status=401 reason=backlog-token%s", repeated)
    response = error_response(401, "a bearer token is needed")
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
