"""Every error this package raises::

    ImproperlyConfigured
    └── ConfigurationError      the environment or the settings are wrong; do not catch it

    BeanstalkDispatchError      every error that a caller may want to catch
    ├── SchedulingError         raised when a task is scheduled
    │   ├── InvalidArgument     JSON would change an argument (also a TypeError)
    │   ├── InvalidCall         wrong arguments or options of a call (also a ValueError)
    │   ├── MessageTooLarge     the message is larger than SQS allows (also a ValueError)
    │   ├── UnknownQueue        no alias and no queue on SQS has this name (also a LookupError)
    │   └── SendError           SQS could not be reached, or refused the message
    │       └── BatchError      schedule_many sent some messages and could not send others
    ├── UnknownFunction         the dispatch table does not list it, or its entry cannot run
    │   └── NotImportable       it is listed, and cannot be imported on this machine
    ├── MessageError            a received message that can never run
    │   ├── MalformedMessage    not a message, or one from a newer version
    │   ├── BadSignature        unsigned, altered, or signed for another queue
    │   └── NotAllowed          a periodic task that the configuration does not list
    ├── UnknownResult           no result is kept under this id (also a LookupError)
    ├── NoTimeLeft              the consumer ends before the task could
    ├── TaskCut                 its process has ended while it ran
    ├── TaskFailed          it has failed in a process of its own
    ├── TaskCancelled           it was cancelled; a task may raise it, too
    ├── TaskExpired             its moment had passed before it could run
    └── LeaseError              a received message that does not run now
        ├── AlreadyDone         it has succeeded, or this attempt of it has ended
        ├── AlreadyRunning      it is running now, here or elsewhere
        └── LeaseUnavailable    the lease's cache does not answer

    TimeoutError
    └── TaskTimeout             passed to a task's on_error when its time limit has passed

Code that handles failed tasks catches BeanstalkDispatchError or one of its subclasses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.core.exceptions import ImproperlyConfigured


class ConfigurationError(ImproperlyConfigured):
    """The configuration is wrong. The message lists every problem with its variable.

    It is not a BeanstalkDispatchError, so that code that handles failed tasks does not hide it.
    """


class BeanstalkDispatchError(Exception):
    """Base of every error that a caller may want to catch."""


class SchedulingError(BeanstalkDispatchError):
    """The task was not scheduled."""


class InvalidArgument(SchedulingError, TypeError):
    """JSON would change an argument. The error names it, and a value to pass instead."""


class InvalidCall(SchedulingError, ValueError):
    """A delay, group id, deduplication id or option is not one that SQS or this package accepts."""


class MessageTooLarge(SchedulingError, ValueError):
    """The encoded message is larger than SQS allows. The error gives both sizes in bytes."""


class UnknownQueue(SchedulingError, LookupError):
    """No alias with this name is configured, or SQS has no such queue."""


class SendError(SchedulingError):
    """SQS could not be reached, or refused the request. ``__cause__`` is botocore's error."""


class BatchError(SendError):
    """Some calls of one ``schedule_many`` could not be sent.

    To send the rest, call again with ``[calls[position] for position in error.unsent]``. If the
    reason is a lost connection, SQS may have taken a message although no answer arrived. If you
    send that message again, its task runs twice.
    """

    sent: dict[int, str]
    """The task id of each call that was sent, by the position of the call."""
    unsent: dict[int, str]
    """The reason for each call that was not sent, by the position of the call."""
    refused: frozenset[int]
    """The positions of those that SQS refuses although it may take others. Change them first."""

    def __init__(
        self, *, sent: Mapping[int, str], unsent: Mapping[int, str], refused: Iterable[int] = ()
    ) -> None:
        self.sent = dict(sent)
        self.unsent = dict(unsent)
        self.refused = frozenset(refused)
        reasons = "; ".join(sorted(set(self.unsent.values())))
        super().__init__(
            f"{len(self.unsent)} of {len(self.sent) + len(self.unsent)} messages were not sent: "
            f"{reasons}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _batch_error, (self.sent, self.unsent, self.refused)


def _batch_error(
    sent: Mapping[int, str], unsent: Mapping[int, str], refused: frozenset[int]
) -> BatchError:
    return BatchError(sent=sent, unsent=unsent, refused=refused)


class UnknownFunction(BeanstalkDispatchError, LookupError):
    """The dispatch table does not list the function, or its entry cannot run."""


class NotImportable(UnknownFunction):
    """A listed function cannot be imported on this machine, or its module lacks it."""


class UnknownResult(BeanstalkDispatchError, LookupError):
    """No result is kept under this id: there was none, or it has expired."""


class MessageError(BeanstalkDispatchError):
    """A received message that can never run, even if it is delivered again."""


class MalformedMessage(MessageError):
    """The body is not a message that this version understands."""


class BadSignature(MessageError):
    """The body is not signed, or none of the keys signed it for this queue."""


class NotAllowed(MessageError):
    """A periodic task that the configuration does not list. Periodic tasks cannot be signed."""


class NoTimeLeft(BeanstalkDispatchError):
    """The consumer itself ends before the task could, so the task does not start."""


class TaskCut(BeanstalkDispatchError):
    """The process has ended while the task ran."""

    stacks: str = ""
    """The stacks of its threads, if it was a child that a signal has ended."""


class TaskFailed(BeanstalkDispatchError):
    """The task has failed in a process of its own, where its observers have seen the exception.

    The message is the name and the message of that exception.
    """


class TaskCancelled(BeanstalkDispatchError):
    """The task was cancelled, so it does not run, or ends early.

    A task that finds ``self.cancelled`` may raise it. It is not a failure, and is not retried.
    """


class TaskExpired(BeanstalkDispatchError):
    """The task has not run before the moment that its ``expires`` names, so it never runs."""


class LeaseError(BeanstalkDispatchError):
    """The message does not run now, because it could run twice."""

    retry_after: float | None
    """Seconds after which the message may be tried again. None means never."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class AlreadyDone(LeaseError):
    """The task has succeeded already, or a later attempt of it has begun."""


class AlreadyRunning(LeaseError):
    """Another delivery holds the lease, which expires after ``retry_after`` seconds."""


class LeaseUnavailable(LeaseError):
    """The cache of the lease does not answer."""


class TaskTimeout(TimeoutError):
    """The task's time limit has passed."""
