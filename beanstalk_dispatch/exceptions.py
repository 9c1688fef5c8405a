"""Every error this package raises.

ImproperlyConfigured
└── ConfigurationError      the environment or the settings are wrong; not meant to be caught

BeanstalkDispatchError      everything a caller may want to catch
├── SchedulingError         raised by schedule_function and its kin
│   ├── InvalidArgument     an argument does not survive JSON (also a TypeError)
│   ├── InvalidCall         a delay, group id or option SQS would refuse (also a ValueError)
│   ├── MessageTooLarge     the message is above SQS's limit (also a ValueError)
│   ├── UnknownQueue        the queue is neither an alias nor on SQS (also a LookupError)
│   └── SendError           SQS could not be reached or refused the message
│       └── BatchError      some messages of schedule_many were sent, others were not
├── UnknownFunction         the dispatch table does not list it, or lists something that cannot run
├── MessageError            a received message that can never run
│   ├── MalformedMessage    not a message, or one from a newer version
│   ├── BadSignature        unsigned, altered, or signed for another queue
│   └── NotAllowed          a periodic task the configuration does not list
└── LeaseError              a received message that does not run now
    ├── AlreadyDone         it ran to success, or this attempt of it has ended
    ├── AlreadyRunning      it runs at this moment, here or elsewhere
    └── LeaseUnavailable    the lease's cache does not answer

TimeoutError
└── TaskTimeout             what a task's on_error gets when its time limit has passed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.core.exceptions import ImproperlyConfigured


class ConfigurationError(ImproperlyConfigured):
    """The configuration is wrong. The text lists every problem, with the variable's name."""


class BeanstalkDispatchError(Exception):
    """Base of every error a caller may want to catch."""


class SchedulingError(BeanstalkDispatchError):
    """The task was not scheduled."""


class InvalidArgument(SchedulingError, TypeError):
    """An argument would not come back from JSON as it went in."""


class InvalidCall(SchedulingError, ValueError):
    """A delay, group id, deduplication id or option is outside what SQS or we accept."""


class MessageTooLarge(SchedulingError, ValueError):
    """The encoded message is above SQS's limit; the text gives actual and allowed bytes."""


class UnknownQueue(SchedulingError, LookupError):
    """No alias of that name is configured, or SQS has no such queue."""


class SendError(SchedulingError):
    """SQS could not be reached or refused the request; ``__cause__`` is botocore's error."""


class BatchError(SendError):
    """Some calls of one ``schedule_many`` could not be sent.

    ``sent`` maps the position of each sent call to its task id; ``unsent`` maps the
    position of each call that is not on the queue to SQS's reason. To send the rest, call
    again with ``[calls[position] for position in error.unsent]``. Where the reason is a lost
    connection, SQS may have taken a message whose answer never came; sent again, it runs twice.
    """

    def __init__(self, *, sent: Mapping[int, str], unsent: Mapping[int, str]) -> None:
        self.sent = dict(sent)
        self.unsent = dict(unsent)
        reasons = "; ".join(sorted(set(self.unsent.values())))
        super().__init__(
            f"{len(self.unsent)} of {len(self.sent) + len(self.unsent)} messages were not sent: "
            f"{reasons}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _batch_error, (self.sent, self.unsent)


def _batch_error(sent: Mapping[int, str], unsent: Mapping[int, str]) -> BatchError:
    return BatchError(sent=sent, unsent=unsent)


class UnknownFunction(BeanstalkDispatchError, LookupError):
    """The dispatch table does not list the function, or what it lists cannot run."""


class MessageError(BeanstalkDispatchError):
    """A received message that can never run, however often it is delivered."""


class MalformedMessage(MessageError):
    """The body is not a message this version understands."""


class BadSignature(MessageError):
    """The body carries no signature, or one that none of our keys made for this queue."""


class NotAllowed(MessageError):
    """A periodic task, which cannot be signed, that the configuration does not list."""


class LeaseError(BeanstalkDispatchError):
    """The message is not run now, so that it does not run twice.

    ``retry_after``: seconds after which trying again makes sense; None for never.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class AlreadyDone(LeaseError):
    """A duplicate of what ran to success, or was handed on to a later attempt."""


class AlreadyRunning(LeaseError):
    """Somebody holds the lease; ``retry_after`` is when it expires."""


class LeaseUnavailable(LeaseError):
    """The cache of the lease cannot be asked."""


class TaskTimeout(TimeoutError):
    """The task's time limit has passed."""


def listed(names: Sequence[str] | Mapping[str, object], limit: int = 20) -> str:
    """``names`` sorted for an error text, cut after ``limit``."""
    shown = sorted(names)
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return (", ".join(shown[:limit]) or "none") + more
