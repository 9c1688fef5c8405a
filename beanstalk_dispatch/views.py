"""The two views: the dispatcher, to which aws-sqsd POSTs, and the backlog, for scalers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from .consumers.endpoint import dispatcher as endpoint
from .consumers.endpoint.responses import error_response
from .exceptions import ConfigurationError
from .logging.throttle import THROTTLE
from .queues import backlog_answer

logger = logging.getLogger("beanstalk_dispatch.endpoint")

View = Callable[[HttpRequest], HttpResponse]


def _for_machines(view: View) -> View:
    """Free a view of CSRF protection and login, and have it answer 500 if settings are wrong."""

    @csrf_exempt
    @login_not_required
    @functools.wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        try:
            return view(request)
        except ConfigurationError as exc:
            if (repeated := THROTTLE.repeated("configuration")) is not None:
                logger.error("refused status=500 reason=configuration%s error=%s", repeated, exc)
            endpoint.hold_unless_configured(request)
            return error_response(500, "the worker's configuration is wrong; see its log")

    return answer


@_for_machines
def dispatcher(request: HttpRequest) -> HttpResponse:
    """Run the message in the body, and answer so that SQS keeps or deletes it."""
    return endpoint.answer(request)


@_for_machines
def backlog(request: HttpRequest) -> HttpResponse:
    """Return how much waits in each queue, as JSON, and how many processes that needs."""
    response = backlog_answer.answer(request)
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
