"""``manage.py beanstalk_daemon QUEUE… URL`` stands in for aws-sqsd."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any, ClassVar

from django.core.management.base import CommandError

from beanstalk_dispatch.conf.removed import DAEMON_OPTIONS
from beanstalk_dispatch.consumers.endpoint.sqsd import SqsdOptions
from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.post_runner import PostRunner
from beanstalk_dispatch.consumers.poller.worker import Worker
from beanstalk_dispatch.management.arguments import add_removed_options, integer
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS

from . import beanstalk_worker
from .beanstalk_worker import add_common_arguments, options_of_every_worker


class Command(beanstalk_worker.Command):
    """A worker that runs no task itself. Its options have the daemon's names and defaults."""

    help = "Receive messages from SQS queues and POST them, as aws-sqsd does on a worker machine."
    runs_tasks: ClassVar = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of docs/local.md."""
        # fmt: off
        add, daemon = parser.add_argument, SqsdOptions()
        add("queues", nargs="+", metavar="QUEUE", help="alias, name, URL or ARN of a queue")
        add("url", metavar="URL", help="the http:// URL to POST each message to")
        add("--http-connections", type=integer(1, 100), default=daemon.http_connections,
            help="requests at a time (default %(default)s)")
        add("--visibility-timeout", type=integer(1, MAX_VISIBILITY_SECONDS),
            default=daemon.visibility_timeout,
            help="seconds for which a received message is hidden (default %(default)s)")
        add("--connect-timeout", type=integer(1, 60), default=daemon.connect_timeout,
            help="seconds to wait for a connection (default %(default)s)")
        add("--inactivity-timeout", type=integer(1, 36000), default=daemon.inactivity_timeout,
            help="seconds to wait for an answer (default %(default)s)")
        add("--error-visibility-timeout", type=integer(0, MAX_VISIBILITY_SECONDS),
            default=daemon.error_visibility_timeout,
            help="seconds until a failed message is delivered again (default %(default)s)")
        add("--mime-type", default=daemon.mime_type,
            help="the Content-Type of each request (default %(default)s)")
        # fmt: on
        add_common_arguments(parser)
        add_removed_options(parser, DAEMON_OPTIONS)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until it is stopped."""
        super().handle(*args, **options, outbox=False)

    def make_worker(self, options: dict[str, Any]) -> Worker:
        """Return a worker that POSTs the messages. Raise CommandError for a URL of another kind."""
        daemon = SqsdOptions(**{each.name: options[each.name] for each in fields(SqsdOptions)})
        try:
            runner = PostRunner(options["url"], daemon)
        except ValueError as exc:
            raise CommandError(f"cannot post: {exc}") from exc
        worker_options = WorkerOptions(
            threads=daemon.http_connections,
            visibility_timeout=daemon.visibility_timeout,
            heartbeat=False,
            **options_of_every_worker(options),
        )
        return Worker(options["queues"], runner, worker_options)
