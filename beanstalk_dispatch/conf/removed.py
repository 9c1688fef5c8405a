"""The public names that were removed, each with its replacement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

VARIABLES: Final[Mapping[str, str]] = {
    "BEANSTALK_DISPATCH_CHECK_CALLS": "A call is always checked. A task that takes what its "
    "signature does not say takes **kwargs.",
    "BEANSTALK_DISPATCH_BACKLOG_THREADS": "The backlog counts with the 10 threads of "
    "beanstalk_worker; divide the scaler's target for your own number by 10.",
}

MIDDLEWARE: Final[Mapping[str, str]] = {
    "beanstalk_dispatch.middleware.BatchingMiddleware": "Write 'with batching():' of "
    "beanstalk_dispatch.client around the calls of a view.",
}

_OF_DAEMON: Final = (
    "--post-to", "--connect-timeout", "--inactivity-timeout", "--error-visibility-timeout",
    "--mime-type",
)  # fmt: skip

WORKER_OPTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_OF_DAEMON, "write manage.py beanstalk_daemon QUEUE URL"),
    "--processes": "one command uses all CPUs with BEANSTALK_DISPATCH_ISOLATION=process, and its "
    "--threads are then processes",
}

DAEMON_OPTIONS: Final[Mapping[str, str]] = {
    "--processes": "one process sends enough; --http-connections is the number of its requests",
}


def replacement_of(variable: str) -> str | None:
    """Return the advice for a removed variable, or for the variable of its file.

    Return None for a name that was never a variable.
    """
    return VARIABLES.get(variable.removesuffix("_FILE"))
