"""Warming up: the work that a process does once, done before its first message.

This is the import of boto3, a client for each region and endpoint, the credentials, and the URLs of
the queues that are given by name.

A fork waits until this has ended: see ``no_fork``.
"""

from __future__ import annotations

import codecs

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.process.state import no_fork

from .opening import client_for, open_queue


def warm_queues(config: Config) -> None:
    """Make the clients of all aliases, and ask for the URLs of queues that are given by name.

    A queue that is given by its URL or ARN needs no request. Without aliases the client of the
    default region is made. Raise SchedulingError if a client or a queue is not usable.
    """
    warm_clients(config)
    for name in config.queues:
        open_queue(name)


def warm_clients(config: Config) -> None:
    """Import boto3 and make the clients of all aliases. No request is made.

    Raise SendError if a client cannot be made.
    """
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
