"""Task arguments leave the machine only if the project's Sentry options say so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from django.urls import Resolver404, resolve

TASK_OP: Final = "queue.task.beanstalk_dispatch"
"""The operation of a task's own transaction."""
FILTERED: Final = "[Filtered]"
_OURS: Final = "beanstalk_dispatch."
_CLIENTS: Final = ("boto3.", "botocore.", "urllib3.", "http.")  # hold credentials, too
_CARRIERS: Final = (_OURS, *_CLIENTS)  # hold whole messages
_TIME_LIMIT_LOGGER: Final = "beanstalk_dispatch.task.time_limit"
_MARK: Final = "x-aws-sqsd-msgid"
_LONG_ENOUGH: Final = 4  # a shorter text is looked for as a whole only
_BEGINNING: Final = 50  # of a longer text; the SDK cuts long locals off
_MANY: Final = 100  # arguments; comparing more of them with each local would take its time

Event = Any  # a dict; the SDK's own type of it came later than the SDKs we run with
Processor = Callable[[Event, Any], Event | None]


def may_send_arguments() -> bool:
    """``data_collection["queues"]`` where the SDK has it, else ``send_default_pii``."""
    import sentry_sdk

    client = sentry_sdk.get_client()
    collection = client.options.get("data_collection") or {}
    return bool(collection.get("queues", client.should_send_default_pii()))


def clean_event(event: Event, hint: Any) -> Event | None:
    """What stands before each client's ``before_send``.

    Drops the log line of a stuck task, which has an event of its own with more in it.
    """
    logged = (event.get("logentry") or {}).get("message") or ""
    if event.get("logger") == _TIME_LIMIT_LOGGER and logged.startswith("stuck task "):
        return None
    return scrub_carriers(drop_message(event, hint), hint)


def clean_transaction(event: Event, hint: Any) -> Event | None:
    """What stands before each client's ``before_send_transaction``.

    Drops that of the daemon's POST, whose task has a transaction of its own. Only the first after
    the project has set the SDK up again comes here; then the sampler leaves them out.
    """
    is_request = _trace_of(event).get("op") == "http.server"
    return None if is_request and _has_mark(event) else drop_message(event, hint)


def scrub_carriers(event: Event, hint: Any) -> Event:
    """Drop the locals of the frames that carry a message, wherever an event comes from.

    The frames of the AWS client carry credentials. Their locals are dropped also where arguments
    may be sent.
    """
    frames = list(_iterate_frames(event))
    if any(_module_name(frame).startswith(_OURS) for frame in frames):
        may_send = may_send_arguments()
        for frame in frames:
            if _module_name(frame).startswith(_CLIENTS):
                frame.pop("vars", None)
            elif not may_send:
                _scrub_frame(frame, ())
    return event


def drop_message(event: Event, hint: Any) -> Event:
    """Drop the body of a request to the dispatcher, which is the message.

    It is called for every event. A project may still call it in a ``before_send`` of its own.
    """
    request = event.get("request") or {}
    if "data" in request and _is_to_dispatcher(event) and not may_send_arguments():
        del request["data"]
    return event


def _is_to_dispatcher(event: Event) -> bool:
    """Whether the daemon has sent the request, or somebody else to the daemon's URL."""
    if _has_mark(event):
        return True
    path = urlsplit(event["request"].get("url") or "").path
    try:
        return resolve(path).url_name == "beanstalk_dispatcher"
    except Resolver404:
        return False
    except Exception:  # the project's urls.py may be what the event is about
        return True


def _has_mark(event: Event) -> bool:
    headers = (event.get("request") or {}).get("headers") or ()
    return any(name.lower() == _MARK for name in headers)


def scrubber(function: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Processor:
    """An event processor for the scope in which a task with these arguments runs."""

    def scrub(event: Event, hint: Any) -> Event:
        if not may_send_arguments():
            arguments = set(_iterate_leaves([*args, *kwargs.values()], _as_in_a_local)) - {""}
            for frame in _iterate_frames(event):
                _scrub_frame(frame, arguments)
        # Under ASGI the SDK has put the URL's name there.
        is_others = event.get("type") == "transaction" and _trace_of(event).get("op") != TASK_OP
        if function and not is_others:
            event["transaction"] = function
            event["transaction_info"] = {"source": "task"}
        return event

    return scrub


def _trace_of(event: Event) -> Mapping[str, Any]:
    return (event.get("contexts") or {}).get("trace") or {}


def _iterate_frames(event: Event) -> Iterator[dict[str, Any]]:
    for kind in ("exception", "threads"):
        for value in (event.get(kind) or {}).get("values") or ():
            yield from (value.get("stacktrace") or {}).get("frames") or ()


def _module_name(frame: Mapping[str, Any]) -> str:
    return str(frame.get("module"))


def _scrub_frame(frame: dict[str, Any], arguments: Collection[str]) -> None:
    if _module_name(frame).startswith(_CARRIERS) or len(arguments) > _MANY:
        frame.pop("vars", None)
    elif variables := frame.get("vars"):
        frame["vars"] = {
            name: FILTERED
            if name in {"args", "kwargs"} or _shows_arguments(value, arguments)
            else value
            for name, value in variables.items()
        }


def _shows_arguments(value: object, arguments: Collection[str]) -> bool:
    """Whether a local, which the SDK has turned into strings, shows one of the arguments."""
    return any(
        text.strip("'\"") == argument or (len(argument) >= _LONG_ENOUGH and argument in text)
        for text in _iterate_leaves(value, str)
        for argument in arguments
    )


def _iterate_leaves(value: object, write: Callable[[object], str]) -> Iterator[str]:
    """The strings and numbers in a JSON value."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for item in value:
            yield from _iterate_leaves(item, write)
    elif value is not None and not isinstance(value, bool):
        yield write(value)


def _as_in_a_local(value: object) -> str:
    return repr(value).strip("'\"")[:_BEGINNING]


CLEANERS: Final[Mapping[str, Processor]] = {
    "before_send": clean_event,
    "before_send_transaction": clean_transaction,
}
"""Option of the SDK → what stands before the project's own."""
