"""The two views: the dispatcher, to which aws-sqsd POSTs, and the backlog, for scalers."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import csrf_exempt

from .consumers.endpoint import dispatcher as endpoint
from .consumers.endpoint.responses import error_response
from .exceptions import ConfigurationError
from .logging.throttle import THROTTLE
from .queues import backlog_answer

logger = logging.getLogger("beanstalk_dispatch.endpoint")


class _EveryDatabase(set[str]):
    """The databases of which a view has no transaction, without asking the settings for them.

    A task has its own transactions, or none, whatever ATOMIC_REQUESTS says. The backlog needs no
    database.
    https://docs.djangoproject.com/en/stable/topics/db/transactions/#tying-transactions-to-http-requests
    """

    def __contains__(self, alias: object) -> bool:
        return True


View = Callable[[HttpRequest], HttpResponse]


def _for_machines(view: View) -> View:
    """Free a view of CSRF protection, login and transactions; answer 500 if settings are wrong."""

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

    # As transaction.non_atomic_requests() sets it, for one database.
    answer._non_atomic_requests = _EveryDatabase()  # type: ignore[attr-defined]  # noqa: SLF001
    return answer


dispatcher: Final = _for_machines(endpoint.dispatch)
"""The view to which aws-sqsd POSTs."""
backlog: Final = _for_machines(cache_control(no_store=True)(backlog_answer.answer))
"""The view from which a scaler reads how much waits."""
