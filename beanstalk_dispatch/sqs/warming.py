"""Warming up: does before the first message what a process has to do once.

That is the import of boto3, a client for each region and endpoint, the credentials, and the URLs of
the queues that are given by name.

A process must not fork while another of its threads imports a module: the child would have a lock
of that import that no thread releases. So a fork waits until the imports here have ended.
"""

from __future__ import annotations

import codecs
import os
import threading
from typing import Final

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.queue_address import QueueAddress

from .opening import client_for, open_queue

FORK_WAIT_SECONDS: Final = 10.0
"""How long a fork waits at most, for example because the thread that forks is importing, too."""


class _Imports:
    """A lock that is held while modules are imported here, and during a fork."""

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


_imports: Final = _Imports()
os.register_at_fork(
    before=_imports.before_fork,
    after_in_parent=_imports.after_fork_in_parent,
    after_in_child=_imports.after_fork_in_child,
)


def warm_queues(config: Config) -> None:
    """Make the clients of all aliases, and look their queues up. Raises SchedulingError.

    A queue that is given by its URL or ARN needs no request. Without aliases the client of the
    default region is made.
    """
    with _imports.lock:
        for address in config.queues.values() or [QueueAddress(name="default")]:
            _warm_client(address)
        codecs.lookup("idna")  # the first connection imports it
    for name in config.queues:
        open_queue(name)


def _warm_client(address: QueueAddress) -> None:
    client = client_for(address)
    # It resolves the endpoint and signs, which is slow the first time, and makes no request.
    client.generate_presigned_url(
        "send_message", Params={"QueueUrl": address.url or "https://sqs/0/q", "MessageBody": "x"}
    )
