"""The log line of a process at its start: as a server, or before it has to do with tasks.

A management command such as ``migrate`` neither serves nor schedules, so it logs nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.signals import request_started
from django.dispatch import Signal

from beanstalk_dispatch.conf import (
    get_config,
    import_rooms,
    overruled_variables,
    unknown_variables,
)
from beanstalk_dispatch.conf.variables import OBSERVERS, SIGNING_KEYS, WORKER
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.logging.log_lines import joined, quoted
from beanstalk_dispatch.running.limits import monkey_patching
from beanstalk_dispatch.signals import task_scheduled, task_started

logger = logging.getLogger("beanstalk_dispatch")

UNSIGNED: Final = "anyone who may send to the queue may run every listed function"
SIGN_MESSAGES: Final = (
    f"Set {SIGNING_KEYS.variable} to one long random string, on the web environment first and then "
    'on the worker environment: python -c "import secrets; print(secrets.token_urlsafe(32))"'
)

_SIGNALS: Final[Sequence[Signal]] = (request_started, task_scheduled, task_started)
_TOOLS: Final = frozenset({"manage", "django-admin", "django", "mypy", "dmypy"})
_FIRST: Final = "beanstalk_dispatch.problems.start_log"


def log_start() -> None:
    """Log the lines of a start, now or at the first sign that they matter.

    In a management command or in mypy they wait for the first request, the first scheduled message
    or the first task. ``runserver`` and its like are servers.
    """
    if _is_tool(sys.argv):
        for signal in _SIGNALS:
            signal.connect(_log_at_first, dispatch_uid=_FIRST)
    else:
        _log_start()


def log_waiting() -> bool:
    """Log the lines now, if they wait. Return whether they did."""
    waited = [signal.disconnect(dispatch_uid=_FIRST) for signal in _SIGNALS]
    if any(waited):
        _log_start()
    return any(waited)


def _log_at_first(**kwargs: Any) -> None:
    log_waiting()


def _log_start() -> None:
    log_start_line()
    monkey_patching.log_if_patched()
    log_unknown_variables()
    log_observers()


def _is_tool(arguments: Sequence[str]) -> bool:
    """Return True if ``sys.argv`` is that of a management command but a server, or of mypy.

    mypy's plugin for Django starts the project.
    """
    program = Path(arguments[0] if arguments else "")
    name = program.parent.name if program.name == "__main__.py" else program.stem  # python -m
    return name in _TOOLS and not any("server" in word for word in arguments[1:2])


# --- the lines ------------------------------------------------------------------------------


def log_start_line() -> None:
    """Log one line with the configuration of this process, or the reason why it is wrong."""
    try:
        config = get_config()
    except ConfigurationError as exc:
        logger.error("start worker=unknown reason=configuration error=%s", exc)
        return
    variable, source = WORKER.variable, config.sources["worker"]
    reason = f"{variable} is not set" if source == "default" else f"{variable} from {source}"
    logger.info(
        "start worker=%s reason=%r functions=%s queues=%s signed=%s settings=%s",
        config.worker,
        reason,
        joined([*config.table, *config.tasks]),
        joined(config.queues),
        "yes" if config.signing_keys else "no",
        getattr(settings, "SETTINGS_MODULE", None) or "none",
    )
    if not (config.signing_keys or config.execute_synchronously):
        logger.warning("start signed=no: %s. %s", UNSIGNED, SIGN_MESSAGES)


def log_rooms() -> None:
    """Import the contrib rooms of the variables that are set, and log each that has no effect."""
    for problem in import_rooms():
        logger.error("variable without effect error=%s", problem)


def log_unknown_variables() -> None:
    """Log the variables that are most likely misspelt, and those that have no effect."""
    unknown = unknown_variables()
    if unknown:
        meant = {closest for closest in unknown.values() if closest}
        logger.warning(
            "unknown variables names=%r did_you_mean=%r",
            joined(unknown),
            joined(meant),
        )
    if overruled := overruled_variables():
        logger.warning(
            "variables overruled names=%r error=the Django settings have other values",
            joined(overruled),
        )


def log_observers() -> None:
    """Load the observers of BEANSTALK_DISPATCH_OBSERVERS, and log each that cannot be loaded."""
    with suppress(ConfigurationError):  # the start line reports it
        if not (config := get_config()).observers:
            return
        from beanstalk_dispatch.running.definitions.configured import named_observers  # noqa: PLC0415

        for path, reason in named_observers(config).problems.items():
            logger.error(
                "observer not loaded variable=%s path=%s error=%s",
                OBSERVERS.variable, quoted(path), reason,
            )  # fmt: skip
