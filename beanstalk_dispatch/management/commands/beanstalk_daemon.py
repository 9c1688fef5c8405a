"""``manage.py beanstalk_daemon QUEUE… URL`` stands in for aws-sqsd."""

from __future__ import annotations

import argparse
from typing import Any

from beanstalk_dispatch.endpoint.sqsd import SqsdOptions
from beanstalk_dispatch.management.arguments import integer
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS

from . import beanstalk_worker
from .beanstalk_worker import add_common_arguments, add_daemon_arguments


class Command(beanstalk_worker.Command):
    """A worker that runs no task itself. Its options have the daemon's names and defaults."""

    help = "Receive messages from SQS queues and POST them, as aws-sqsd does on a worker machine."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of docs/local.md."""
        # fmt: off
        add, daemon = parser.add_argument, SqsdOptions()
        add("queues", nargs="+", metavar="QUEUE", help="alias, name, URL or ARN of a queue")
        add("post_to", metavar="URL", help="the http:// URL to POST each message to")
        add("--http-connections", dest="threads", type=integer(1, 100),
            default=daemon.http_connections,
            help="requests at a time (default %(default)s)")
        add("--visibility-timeout", type=integer(1, MAX_VISIBILITY_SECONDS),
            default=daemon.visibility_timeout,
            help="seconds for which a received message is hidden (default %(default)s)")
        # fmt: on
        add_daemon_arguments(parser)
        add_common_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until it is stopped."""
        super().handle(*args, **options, outbox=False)
