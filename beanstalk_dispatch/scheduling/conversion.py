"""Converts the arguments of a call that JSON cannot carry, if the task's annotations allow it.

It imports Django's models, and is needed for such a call only.
"""

from __future__ import annotations

from dataclasses import replace

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.exceptions import InvalidArgument
from beanstalk_dispatch.messages.arguments import json_problem
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.definitions.dispatch_table import entry
from beanstalk_dispatch.running.definitions.typed_arguments import (
    Annotations,
    CannotRebuild,
    Key,
    converted,
)

from .call_check import is_known


def convert_arguments(
    message: Message, error: InvalidArgument, config: Config, *, is_local: bool
) -> Message:
    """Return a message whose arguments are JSON, which the task's annotations bring back.

    ``error`` says which argument is not. Raise it with advice if an argument has no annotation that
    fits, and as it is if this process does not know the task, or if 0.1 may read the message.
    """
    if config.sends_base64 or not is_known(message.function, config, is_local=is_local):
        raise error
    try:
        function, skipped = entry(message.function, config).signed
        known = Annotations(function, skipped=skipped)
        arguments: list[tuple[Key, object]] = [*enumerate(message.args), *message.kwargs.items()]
        keys = [key for key, value in arguments if json_problem("", value)]
        args, kwargs = converted(message.args, message.kwargs, keys, known)
    except CannotRebuild as exc:
        raise InvalidArgument(f"{error}; or {exc}") from None
    except (Exception, SystemExit):  # of an import, or of the project's own classes
        raise error from None
    return replace(message, args=args, kwargs=kwargs, typed=keys)
