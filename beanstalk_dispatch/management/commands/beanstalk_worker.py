"""manage.py beanstalk_worker QUEUE… receives messages and runs their tasks."""

from __future__ import annotations

import argparse
import errno
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from django.core.management.base import BaseCommand, CommandError

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf.removed import WORKER_OPTIONS
from beanstalk_dispatch.conf.variables import DEAD_LETTER_QUEUE, LEASE_CACHE, WORKER
from beanstalk_dispatch.consumers.poller.cron_scheduler import Scheduler
from beanstalk_dispatch.consumers.poller.embedded_metrics import write_backlog
from beanstalk_dispatch.consumers.poller.health import ProbeServer, touch_while_healthy
from beanstalk_dispatch.consumers.poller.metrics import FIGURES
from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.process import WorkerProcess
from beanstalk_dispatch.consumers.poller.runners import run_here
from beanstalk_dispatch.consumers.poller.worker import Tick, Worker
from beanstalk_dispatch.exceptions import SchedulingError
from beanstalk_dispatch.isolation.children import CHILDREN
from beanstalk_dispatch.logging import output
from beanstalk_dispatch.management.arguments import LARGEST, add_removed_options, integer, number
from beanstalk_dispatch.management.printing import PrintingCommand
from beanstalk_dispatch.messages import cron
from beanstalk_dispatch.problems import start_log
from beanstalk_dispatch.problems.check_log import do_not_log_on_first_request
from beanstalk_dispatch.problems.checks.endpoint import without_endpoint
from beanstalk_dispatch.problems.checks.listed_tasks import warning_of_one_task
from beanstalk_dispatch.running.leases.worker_entry import WORKER_ENTRY
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.scheduling import outbox
from beanstalk_dispatch.sqs.administration import get_attributes
from beanstalk_dispatch.sqs.opening import open_queue, resolve_address
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS, MAX_WAIT_SECONDS

logger = logging.getLogger("beanstalk_dispatch.worker")

_DEFAULTS: Final = WorkerOptions()


def address(argument: str) -> tuple[str, int]:
    """Read ``[HOST:]PORT`` as an argparse type; without a host, it is this machine alone."""
    host, _, port = argument.rpartition(":")
    return host.strip("[]") or "127.0.0.1", integer(0, 65535)(port)


seconds: Final = number(0, LARGEST, expected="a number of seconds")
"""Reads a time in seconds as an argparse type."""


class Command(PrintingCommand):
    """The command that makes a worker from the command line's arguments, and runs it."""

    help = "Receive messages from SQS queues and run their tasks."
    runs_tasks: ClassVar = True
    """False for a command that hands messages on, on a machine that may be no worker."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of docs/worker.md."""
        parser.add_argument(
            "queues", nargs="+", metavar="QUEUE", help="alias, name, URL or ARN of a queue"
        )
        _add_worker_arguments(parser)
        add_common_arguments(parser)
        add_removed_options(parser, WORKER_OPTIONS)

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Run this package's checks, but none of a URL that this process does not serve.

        A task that cannot run fails by itself, as under a web server, and does not stop the others.
        """
        try:
            with without_endpoint(), warning_of_one_task():
                BaseCommand.check(self, *args, **kwargs | {"tags": ["beanstalk_dispatch"]})
        except OSError as exc:
            if exc.errno != errno.ENOSPC:  # a full disk takes no warnings, but tasks may run
                raise

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the worker until it stops."""
        do_not_log_on_first_request()
        is_new = output.show(verbosity=options["verbosity"], level=options["log_level"])
        config = conf.get_config()
        if not start_log.log_waiting() and is_new:
            start_log.log_start_line()  # nobody saw it before
        if self.runs_tasks and not config.worker:
            variable = WORKER.variable
            raise CommandError(f"this machine is not a worker; set {variable}=True to run tasks")
        _check_queues(options["queues"])
        if options["outbox"] and outbox.registered() is None:
            raise CommandError(f"--outbox: {outbox.APP!r} is not in INSTALLED_APPS")
        if options["cron"] and self.runs_tasks and config.lease_cache is None:
            logger.warning(
                "every worker with --cron sends each periodic task: have one such worker only, or "
                "set %s",
                LEASE_CACHE.variable,
            )
        self._run_process(self.make_worker(options), options)

    def make_worker(self, options: dict[str, Any]) -> Worker:
        """Return a worker that runs the tasks of the messages."""
        worker_options = WorkerOptions(
            threads=options["threads"],
            visibility_timeout=options["visibility_timeout"],
            obeys_pauses=conf.get_config().lease_cache is not None,
            **options_of_every_worker(options),
        )
        return Worker(options["queues"], run_here, worker_options)

    def _run_process(self, worker: Worker, options: dict[str, Any]) -> None:
        worker.relay = _make_relay(options)
        ticks = list(_make_ticks(worker, options))
        if self.runs_tasks:
            if options["health_port"]:
                FIGURES.start()
            RUNNING.report_cut_tasks(conf.get_config())
            CHILDREN.start(conf.get_config())
            WORKER_ENTRY.start(
                "poller", conf.get_config(), threads=options["threads"], queues=options["queues"]
            )
        if server := _make_server(worker, options):
            threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        WorkerProcess(worker, ticks).run(sender=type(self))
        if options["burst"]:
            _report_burst(worker)


def _add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    add = parser.add_argument
    add("--threads", type=integer(1, 100), default=_DEFAULTS.threads,
        help="tasks at a time (default %(default)s)")
    add("--visibility-timeout", type=integer(1, MAX_VISIBILITY_SECONDS),
        default=_DEFAULTS.visibility_timeout,
        help="seconds for which a received message is hidden (default %(default)s)")
    add("--outbox", action="store_true", help="also send what waits in the outbox")
    # fmt: on


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that beanstalk_daemon has, too."""
    # fmt: off
    add = parser.add_argument
    add("--wait", type=integer(1, MAX_WAIT_SECONDS), default=_DEFAULTS.wait,
        help="seconds of a long poll; with fewer the worker stops sooner and sends more requests "
             "(default %(default)s)")
    add("--grace", type=seconds, default=_DEFAULTS.grace,
        help="seconds for which running tasks may continue after a stop (default %(default)g)")
    add("--max-tasks", type=integer(1, 2**31), help="stop after this number of tasks")
    add("--burst", action="store_true",
        help="stop when the queues are empty; the exit code is 1 if a delivery did not succeed")
    add("--cron", type=Path, metavar="FILE",
        help="send the periodic tasks of this cron.yaml to the first queue")
    add("--health-port", type=address, metavar="[HOST:]PORT",
        help="answer there with 200 or 503, and with Prometheus metrics at /metrics "
             "(HOST: 127.0.0.1 by default; [::] for all addresses)")
    add("--embedded-metrics", action="store_true",
        help="print the backlog of each queue once a minute, as metrics for CloudWatch Logs")
    add("--health-file", type=Path, metavar="FILE",
        help="touch FILE once a second while the worker is healthy")
    add("--log-level", choices=output.LEVELS,
        help="what is logged (default INFO, if the project's LOGGING has no handler for it)")
    # fmt: on


def _check_queues(names: Sequence[str]) -> None:
    """Refuse a name that is not an alias, and the dead-letter queue, which no consumer reads.

    A queue that does not exist yet is waited for.
    """
    config = conf.get_config()
    for each in [resolve_address(name, config) for name in names]:
        if config.is_dead_letter_queue(each.name):
            raise CommandError(
                f"{DEAD_LETTER_QUEUE.variable} names {each.name}: a message that fails would go "
                "back to its own queue; to run dead letters again, type: "
                "python manage.py beanstalk_dead_letters redrive"
            )


def options_of_every_worker(options: dict[str, Any]) -> dict[str, Any]:
    """Return the WorkerOptions that both commands have."""
    return {name: options[name] for name in ("wait", "grace", "max_tasks", "burst")}


def _report_burst(worker: Worker) -> None:
    """Log how much is left for later. Raise CommandError if a delivery did not succeed."""
    for queue in worker.queues:
        with suppress(SchedulingError):
            if delayed := get_attributes(open_queue(queue.name)).delayed:
                logger.warning("burst ended queue=%s delayed=%d", queue.name, delayed)
    if failed := worker.counters.failed:
        deliveries = "1 delivery" if failed == 1 else f"{failed} deliveries"
        raise CommandError(f"{deliveries} did not succeed; the log says why")


def _make_relay(options: dict[str, Any]) -> outbox.OutboxRelay | None:
    found = outbox.registered() if options["outbox"] else None
    return found.relay() if found else None


def _make_ticks(worker: Worker, options: dict[str, Any]) -> Iterator[Tick]:
    """Yield the ticks of the options. Raise CommandError if a file cannot be used."""
    if options["embedded_metrics"]:
        yield write_backlog(worker, sys.stdout)
    if options["cron"]:
        scheduler = Scheduler(cron.load(options["cron"]), options["queues"][0])
        WORKER_ENTRY.next_runs = scheduler.next_runs
        yield scheduler.tick(worker.is_stopping)
    if file := options["health_file"]:
        with _option_at_fault("--health-file"):
            file.touch()
        yield touch_while_healthy(worker, file)


def _make_server(worker: Worker, options: dict[str, Any]) -> ProbeServer | None:
    """Return the server of ``--health-port``, which listens."""
    if not options["health_port"]:
        return None
    with _option_at_fault("--health-port"):
        return ProbeServer(worker, *options["health_port"])


@contextmanager
def _option_at_fault(option: str) -> Iterator[None]:
    """Raise CommandError with the option's name for an error of the operating system."""
    try:
        yield
    except OSError as exc:
        raise CommandError(f"{option}: {exc}") from exc
