"""Logs the failing checks of a worker, once, so that no mistake is silent."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from contextvars import Context
from threading import Thread
from typing import Any, Final

from django.core.signals import request_started
from django.db import connections

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.consumers.endpoint.sqsd import HEADER, MESSAGE_ID
from beanstalk_dispatch.deploying.dispatcher_path import dispatcher_path, leads_to_the_dispatcher
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.process import state

from .checks import check

logger = logging.getLogger("beanstalk_dispatch")

_FIRST_REQUEST: Final = "beanstalk_dispatch.check_log"
_MESSAGE_ID: Final = f"{HEADER}Msgid".lower().encode()
_THREAD: Final = "beanstalk_dispatch-checks"


def log_on_first_request() -> None:
    """Have a worker log its failing checks once, at the first request that its server gets.

    Not earlier: while Django starts, the URLs and other apps may not be imported yet. On other
    machines nothing is logged.
    """
    try:
        is_worker = get_config().worker
    except ConfigurationError:  # which the start line reports
        return
    if is_worker:
        request_started.connect(_log_once, dispatch_uid=_FIRST_REQUEST)
        request_started.connect(_look_at_path)


def _look_at_path(
    environ: Mapping[str, Any] | None = None, scope: Mapping[str, Any] | None = None, **kwargs: Any
) -> None:
    """Log a path at which the daemon posts and the dispatcher is not, once for each path.

    Django answers such a POST by itself.
    """
    facts = environ or scope or {}
    if MESSAGE_ID in facts or any(name == _MESSAGE_ID for name, _ in facts.get("headers", ())):
        _explain_path(facts.get("PATH_INFO") or facts.get("path", ""))


@functools.lru_cache(maxsize=8)
def _explain_path(path: str) -> None:
    if not leads_to_the_dispatcher(path):
        logger.error(
            "wrong path path=%s error=the daemon posts there, and the dispatcher is at %s: correct "
            "HttpPath, or the url in cron.yaml",
            quoted(path), dispatcher_path() or "no URL",
        )  # fmt: skip


def do_not_log_on_first_request() -> None:
    """Log no checks at the first request, because a command has run them itself."""
    request_started.disconnect(dispatch_uid=_FIRST_REQUEST)
    request_started.disconnect(_look_at_path)
    _explain_path.cache_clear()


state.declare(do_not_log_on_first_request, in_child=False)


def _log_once(**kwargs: Any) -> None:
    """Log the failing checks once: of two first requests at a time, only one disconnects.

    A thread does that, because the checks import every listed module, which no request waits for.
    """
    if request_started.disconnect(dispatch_uid=_FIRST_REQUEST):
        thread = Thread(target=_log_failing_in_thread, name=_THREAD, daemon=True)
        try:
            Context().run(thread.start)  # empty, or Sentry's SDK would copy the request's trace
        except RuntimeError as exc:  # no thread can be started
            logger.error("checks could not run error=%s", quoted_error(exc, with_type=True))


def _log_failing_in_thread() -> None:
    try:
        log_failing()
    finally:
        connections.close_all()


def log_failing() -> None:
    """Log a line for each failing check that is not silenced, with its id and its hint.

    One ERROR line names the errors among them, because Sentry makes an event of each such line, and
    every process logs its checks. The lines before it are the event's breadcrumbs.
    """
    try:
        failing = [message for message in check() if not message.is_silenced()]
        for message in failing:
            logger.warning(
                "check failed id=%s hint=%s error=%s",
                message.id, quoted(message.hint), quoted_error(message.msg),
            )  # fmt: skip
        if ids := sorted({str(message.id) for message in failing if message.is_serious()}):
            logger.error("checks failed ids=%s: messages may not run", quoted(" ".join(ids)))
    except Exception as exc:  # a project's modules are imported: they must not fail the request
        logger.error("checks could not run error=%s", quoted_error(exc, with_type=True))
