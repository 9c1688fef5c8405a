"""Task arguments leave the machine only if the project's Sentry options say so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from django.urls import Resolver404, resolve

from beanstalk_dispatch.messages.message import Message

from .sdk import sentry_sdk

NAME: Final = "beanstalk_dispatch"
"""The name of this package in events, hints and sampling contexts."""
TASK_OP: Final = f"queue.task.{NAME}"
"""The operation of a task's own transaction."""
DAEMON_HEADER: Final = "x-aws-sqsd-msgid"
"""The header of every POST of the daemon."""
FILTERED: Final = "[Filtered]"
_OURS: Final = f"{NAME}."  # frames that hold whole messages
_CLIENTS: Final = ("boto3.", "botocore.", "urllib3.", "http.")  # hold credentials, too
_REPORTED_TWICE: Final = {
    "beanstalk_dispatch.task.time_limit": "stuck task ",
    "beanstalk_dispatch.isolation": "child ended ",
}
"""Logger → the beginning of a line whose failure has an event of its own, with more in it."""
_LONG_ENOUGH: Final = 4  # a shorter string is looked for as a whole only
_BEGINNING: Final = 50  # of a longer string; the SDK cuts long locals off
_MANY: Final = 100  # arguments; comparing more of them with each local would take its time

Event = Any  # a dict; the SDK's own type of it came later than the SDKs we run with
Processor = Callable[[Event, Any], Event | None]


def may_send_arguments() -> bool:
    """Return ``data_collection["queues"]`` where the SDK has it, else ``send_default_pii``."""
    client = sentry_sdk.get_client()
    collection = client.options.get("data_collection") or {}
    return bool(collection.get("queues", client.should_send_default_pii()))


def clean(event: Event, hint: Any) -> Event | None:
    """Remove the task's arguments from an event, in front of each client's ``before_send``.

    It is in front of ``before_send_transaction``, too. There, unlike in an event processor, the
    event is complete. None drops the event.
    """
    is_transaction = event.get("type") == "transaction"
    op = ((event.get("contexts") or {}).get("trace") or {}).get("op")
    if is_transaction and op == "http.server" and _is_from_daemon(event):
        # The daemon's POST, whose task has a transaction of its own. The sampler leaves it out,
        # except for the first after the project has set the SDK up again.
        return None
    logged = (event.get("logentry") or {}).get("message") or ""
    if logged.startswith(_REPORTED_TWICE.get(event.get("logger"), "\0")):
        return None
    if str(event.get("logger")).startswith(_OURS) and logged.startswith("%s "):
        # Sentry groups by the format, which failed receives, deletes and requeues have in common.
        operation = str(((event["logentry"].get("params")) or [""])[0])
        event.setdefault("fingerprint", ["{{ default }}", operation])
    drop_message(event, hint)
    messages = [each.message for each in hint.get(NAME, ()) if each.message]
    _scrub_frames(event, messages)
    if messages and (not is_transaction or op == TASK_OP):
        # Under ASGI the SDK has put the URL's name there.
        event |= {"transaction": messages[-1].function, "transaction_info": {"source": "task"}}
    return event


def drop_message(event: Event, hint: Any) -> Event:
    """Drop the body of a request to the dispatcher, which is the message.

    ``clean`` does so. A project may still call it in a ``before_send`` of its own.
    """
    request = event.get("request") or {}
    if "data" in request and _is_to_dispatcher(event) and not may_send_arguments():
        del request["data"]
    return event


def _is_to_dispatcher(event: Event) -> bool:
    """Return True if the daemon has sent the request, or somebody else to the daemon's URL."""
    if _is_from_daemon(event):
        return True
    path = urlsplit(event["request"].get("url") or "").path
    try:
        return resolve(path).url_name == "beanstalk_dispatcher"
    except Resolver404:
        return False
    except Exception:  # the project's urls.py may be what the event is about
        return True


def _is_from_daemon(event: Event) -> bool:
    headers = (event.get("request") or {}).get("headers") or ()
    return any(name.lower() == DAEMON_HEADER for name in headers)


def _scrub_frames(event: Event, messages: Sequence[Message]) -> None:
    """Drop the locals that show arguments, if frames of this package or of a task are sent.

    The frames of the AWS client carry credentials. Their locals are dropped also where arguments
    may be sent.
    """
    frames = list(_iterate_frames(event))
    if not messages and not any(_module_name(frame).startswith(_OURS) for frame in frames):
        return
    may_send = may_send_arguments()
    dropped = _CLIENTS if may_send else (_OURS, *_CLIENTS)
    given = [[*each.args, *each.kwargs.values()] for each in messages]
    arguments = set() if may_send else set(_iterate_leaves(given, _as_in_a_local)) - {""}
    for frame in frames:
        if _module_name(frame).startswith(dropped) or len(arguments) > _MANY:
            frame.pop("vars", None)
        elif not may_send and (variables := frame.get("vars")):
            frame["vars"] = {
                name: FILTERED
                if name in {"args", "kwargs"} or _shows_arguments(value, arguments)
                else value
                for name, value in variables.items()
            }


def _iterate_frames(event: Event) -> Iterator[dict[str, Any]]:
    for kind in ("exception", "threads"):
        for value in (event.get(kind) or {}).get("values") or ():
            yield from (value.get("stacktrace") or {}).get("frames") or ()


def _module_name(frame: Mapping[str, Any]) -> str:
    return str(frame.get("module"))


def _shows_arguments(value: object, arguments: Collection[str]) -> bool:
    """Return True if a local, which the SDK has turned into strings, shows one of the arguments."""
    return any(
        shown.strip("'\"") == argument or (len(argument) >= _LONG_ENOUGH and argument in shown)
        for shown in _iterate_leaves(value, str)
        for argument in arguments
    )


def _iterate_leaves(value: object, write: Callable[[object], str]) -> Iterator[str]:
    """Yield the strings and numbers in a value of a message or of an event."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            yield from _iterate_leaves(item, write)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield write(value)


def _as_in_a_local(value: object) -> str:
    return repr(value).strip("'\"")[:_BEGINNING]
