"""Warming up: does before the first message what a process has to do once.

That is the import of boto3, a client for each region and endpoint, the credentials, and the URLs of
the queues that are given by name.

A process must not fork while another of its threads imports a module or writes to stderr: the child
would have a lock of that import, or of that file, that no thread releases. So a fork waits until
this has ended.
"""

from __future__ import annotations

import codecs
import os
import threading
from contextlib import AbstractContextManager
from typing import Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.queue_address import QueueAddress

from .opening import client_for, open_queue

FORK_WAIT_SECONDS: Final = 10.0
"""How long a fork waits at most, for example because the thread that forks is importing, too."""


class _ForkLock:
    """A lock that is held during a fork, and by a thread while the process must not fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._is_held_by_fork = False

    def before_fork(self) -> None:
        self._is_held_by_fork = self.lock.acquire(timeout=FORK_WAIT_SECONDS)

    def after_fork_in_parent(self) -> None:
        if self._is_held_by_fork:
            self._is_held_by_fork = False
            self.lock.release()

    def after_fork_in_child(self) -> None:
        self.__init__()  # type: ignore[misc]  # its holder may not exist in the child


_fork_lock: Final = _ForkLock()
os.register_at_fork(
    before=_fork_lock.before_fork,
    after_in_parent=_fork_lock.after_fork_in_parent,
    after_in_child=_fork_lock.after_fork_in_child,
)


def no_fork() -> AbstractContextManager[object]:
    """A block that other threads wait for before they fork, FORK_WAIT_SECONDS at most."""
    return _fork_lock.lock


def warm_queues(config: Config) -> None:
    """Make the clients of all aliases, and look their queues up. Raises SchedulingError.

    A queue that is given by its URL or ARN needs no request. Without aliases the client of the
    default region is made.
    """
    warm_clients(config)
    for name in config.queues:
        open_queue(name)


def warm_clients(config: Config) -> None:
    """Import boto3 and make the clients of all aliases. Makes no request. Raises SendError."""
    with no_fork():
        for address in config.queues.values() or [QueueAddress(name="default")]:
            _warm_client(address)
        codecs.lookup("idna")  # the first connection imports it


def _warm_client(address: QueueAddress) -> None:
    client = client_for(address)
    # It resolves the endpoint and signs, which is slow the first time, and makes no request.
    client.generate_presigned_url(
        "send_message", Params={"QueueUrl": address.url or "https://sqs/0/q", "MessageBody": "x"}
    )
