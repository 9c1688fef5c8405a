"""Import in the server of isolation what a first task would import, so that children share it."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - the first connection to a name needs it
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, cast

from django.core.cache import caches
from django.db import connections
from django.template import engines

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.logging.log_lines import quoted, quoted_error
from beanstalk_dispatch.logging.output import show
from beanstalk_dispatch.running.definitions.dispatch_table import listed_names, resolve_early
from beanstalk_dispatch.running.limits.time_limit import stop_watchdog
from beanstalk_dispatch.sqs.session import import_boto3

from . import child  # noqa: F401 - a child needs it

_JOIN_SECONDS: Final = 10.0

logger = logging.getLogger("beanstalk_dispatch.isolation")


def preload(output: Mapping[str, Any] | None) -> None:
    """Import the listed tasks and boto3. Log a task that cannot be imported.

    ``output`` is the log's, as ``logging.output.shown`` returned it in the parent.
    """
    if output is not None:
        show(**output)
    config = get_config()
    for name in listed_names(config):
        try:
            resolve_early(name, config)
        except Exception as exc:
            logger.error(
                "task cannot be imported function=%s error=%s",
                quoted(name), quoted_error(exc.__cause__ or exc, with_type=True),
            )  # fmt: skip
    import_boto3()
    _import_backends()
    _close_connections()
    stop_watchdog()
    _wait_for_threads()


def _wait_for_threads() -> None:
    """Wait for our own threads, such as that of a queue that the project opens: they end soon."""
    for thread in threading.enumerate():
        if thread.name.startswith("beanstalk_dispatch-"):
            thread.join(_JOIN_SECONDS)


def _import_backends() -> None:
    """Import the drivers of databases and caches, and templates' tags, without a connection."""
    for alias in connections:
        with suppress(Exception):  # one that cannot be made fails where it is used
            connections[alias]
    for alias in caches:
        with suppress(Exception):  # Django imports the client of a server, such as redis, for this
            getattr(caches[alias], "_cache")  # noqa: B009
    with suppress(Exception):
        engines.all()


def _close_connections() -> None:
    """Close what the project has opened when it was imported: no child may share a connection."""
    for connection in connections.all(initialized_only=True):
        with suppress(Exception):
            connection.close()
        with suppress(Exception):  # only a few backends have one
            cast("Any", connection).close_pool()
    with suppress(Exception):
        caches.close_all()
