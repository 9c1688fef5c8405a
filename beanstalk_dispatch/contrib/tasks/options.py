"""The one of OPTIONS of an entry of TASKS: whether a task waits for the commit of a transaction."""

from __future__ import annotations

from typing import Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.casts import InvalidValue, boolean
from beanstalk_dispatch.exceptions import ConfigurationError

from .library import BaseTaskBackend

ON_COMMIT: Final = "ENQUEUE_ON_COMMIT"


def on_commit_option(backend: BaseTaskBackend) -> bool | None:
    """Return the option of a backend; None if it is not set.

    Raise ConfigurationError if it is not a boolean.
    """
    value = backend.options.get(ON_COMMIT)
    try:
        return None if value is None else boolean(value)
    except InvalidValue as exc:
        raise ConfigurationError(f"TASKS[{backend.alias!r}]: {ON_COMMIT} {exc}") from None


def waits_for_commits(option: bool | None, config: Config) -> bool:
    """Return True if a task that is enqueued in a transaction waits for its commit.

    Without the option BEANSTALK_DISPATCH_ON_COMMIT applies. Without both it waits: a worker that is
    faster than the commit would not find the rows that the task is about.
    """
    if option is not None:
        return option
    return config.on_commit or config.sources["on_commit"] == "default"
