"""manage.py beanstalk_worker QUEUE… runs tasks in this process, or in several."""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

from django.core.management.base import BaseCommand, CommandError

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf.removed import WORKER_OPTIONS
from beanstalk_dispatch.conf.variables import WORKER
from beanstalk_dispatch.consumers.poller import log_output
from beanstalk_dispatch.consumers.poller.cron_scheduler import Scheduler
from beanstalk_dispatch.consumers.poller.embedded_metrics import write_backlog
from beanstalk_dispatch.consumers.poller.health import (
    ProbeServer,
    touch_while_healthy,
    why_unhealthy,
)
from beanstalk_dispatch.consumers.poller.metrics import Metric, metrics
from beanstalk_dispatch.consumers.poller.options import WorkerOptions
from beanstalk_dispatch.consumers.poller.process import WorkerProcess
from beanstalk_dispatch.consumers.poller.process_reports import ProcessReports
from beanstalk_dispatch.consumers.poller.runners import run_here
from beanstalk_dispatch.consumers.poller.supervisor import (
    EXIT_CODES_OF_AN_END,
    STOP_MARGIN_SECONDS,
    Supervisor,
    SupervisorTimes,
    worker_ticks,
)
from beanstalk_dispatch.consumers.poller.worker import EXIT_FAILED, Tick, Worker
from beanstalk_dispatch.exceptions import ConfigurationError, SchedulingError, UnknownQueue
from beanstalk_dispatch.management.arguments import RemovedOption, integer, to_number
from beanstalk_dispatch.messages import cron
from beanstalk_dispatch.problems import start_log
from beanstalk_dispatch.problems.check_log import do_not_log_on_first_request
from beanstalk_dispatch.problems.checks import warning_of_one_task, without_endpoint
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.scheduling import outbox
from beanstalk_dispatch.sqs.opening import open_queue, resolve_address
from beanstalk_dispatch.sqs.quotas import MAX_VISIBILITY_SECONDS, MAX_WAIT_SECONDS

logger = logging.getLogger("beanstalk_dispatch.worker")

_DEFAULTS: Final = WorkerOptions()


def address(argument: str) -> tuple[str, int]:
    """Read ``[HOST:]PORT`` as an argparse type; without a host, it is this machine alone."""
    host, _, port = argument.rpartition(":")
    return host.strip("[]") or "127.0.0.1", integer(0, 65535)(port)


def seconds(argument: str) -> float:
    """Read a time in seconds as an argparse type."""
    number = to_number(argument)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not {argument!r}")
    return number


class Command(BaseCommand):
    """The command that makes a worker from the command line's arguments, and runs it."""

    help = "Receive messages from SQS queues and run their tasks."
    runs_tasks: ClassVar = True
    """False for a command that hands messages on, on a machine that may be no worker."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of docs/local.md."""
        parser.add_argument(
            "queues", nargs="+", metavar="QUEUE", help="alias, name, URL or ARN of a queue"
        )
        _add_worker_arguments(parser)
        add_common_arguments(parser)
        for option in WORKER_OPTIONS:
            parser.add_argument(option, action=RemovedOption, help=argparse.SUPPRESS)

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Run Django's checks, but none of a URL that this process does not serve.

        A task that cannot run fails by itself, as under a web server, and does not stop the others.
        """
        with without_endpoint(), warning_of_one_task():
            super().check(*args, **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the worker until it stops."""
        try:
            self._run_worker(options)
        except ConfigurationError as exc:
            raise CommandError(str(exc)) from exc

    def make_worker(self, options: dict[str, Any]) -> Worker:
        """Return a worker that runs the tasks of the messages."""
        worker_options = WorkerOptions(
            threads=options["threads"],
            visibility_timeout=options["visibility_timeout"],
            obeys_pauses=conf.get_config().lease_cache is not None,
            **options_of_every_worker(options),
        )
        return Worker(options["queues"], run_here, worker_options)

    def _run_worker(self, options: dict[str, Any]) -> None:
        do_not_log_on_first_request()
        is_new = log_output.show(verbosity=options["verbosity"], level=options["log_level"])
        config = conf.get_config()
        if not start_log.log_waiting() and is_new:
            start_log.log_start_line()  # nobody saw it before
        if self.runs_tasks and not config.worker:
            variable = WORKER.variable
            raise CommandError(f"this machine is not a worker; set {variable}=True to run tasks")
        _check_queues(options["queues"])
        if options["outbox"] and outbox.registered() is None:
            raise CommandError(f"--outbox: {outbox.APP!r} is not in INSTALLED_APPS")
        if options["processes"] > 1:
            self._run_processes(options)
        else:
            self._run_one(options)

    def _run_processes(self, options: dict[str, Any]) -> None:
        """Run a supervisor until all its processes have ended, and exit with its exit code."""
        self.make_worker(options)  # refuses wrong options before a process is forked
        _make_scheduler(options)
        supervisor_pid = os.getpid()
        directory = tempfile.mkdtemp(prefix="beanstalk-worker-")
        reports = ProcessReports(Path(directory), processes=options["processes"])

        def run_one(index: int) -> None:
            ticks = partial(worker_ticks, report=reports.file(index), supervisor=supervisor_pid)
            self._run_one(options, index, supervisor_ticks=ticks)

        stop = max(options["grace"], options["wait"]) + STOP_MARGIN_SECONDS
        try:
            server, ticks = _make_health(options, reports.why_unhealthy, reports.metrics)
            supervisor = Supervisor(
                run_one, reports, processes=options["processes"], end_codes=_end_codes(options),
                server=server, ticks=ticks, times=SupervisorTimes(stop=stop),
            )  # fmt: skip
            gc.freeze()  # what exists now stays shared: the collector writes to what it visits
            exit_code = supervisor.run()
        finally:
            if os.getpid() == supervisor_pid:  # pragma: no branch - a child ends elsewhere
                shutil.rmtree(directory, ignore_errors=True)
        if exit_code:
            sys.exit(exit_code)

    def _run_one(
        self,
        options: dict[str, Any],
        index: int = 0,
        *,
        supervisor_ticks: Callable[[Worker], list[Tick]] | None = None,
    ) -> None:
        """Run a worker: the only one, or one of several under a supervisor, with its ticks."""
        worker = self.make_worker(options)
        ticks: list[Tick] = []
        if index == 0:
            worker.relay = _make_relay(options)
            ticks += _ticks_of_first(worker, options)
        if self.runs_tasks:
            RUNNING.report_cut_tasks(conf.get_config())
        if supervisor_ticks:
            ticks += supervisor_ticks(worker)
        else:
            server, health_ticks = _make_health(
                options, partial(why_unhealthy, worker), partial(metrics, worker)
            )
            ticks += health_ticks
            if server:
                threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
            worker.exit_code_of_failures = EXIT_FAILED
        is_supervised = supervisor_ticks is not None
        WorkerProcess(worker, ticks, is_supervised=is_supervised).run(sender=type(self))
        if options["burst"] and not is_supervised:
            _report_burst(worker)


def _add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    add = parser.add_argument
    add("--threads", type=integer(1, 100), default=_DEFAULTS.threads,
        help="tasks at a time (default %(default)s)")
    add("--visibility-timeout", type=integer(1, MAX_VISIBILITY_SECONDS),
        default=_DEFAULTS.visibility_timeout,
        help="seconds for which a received message is hidden (default %(default)s)")
    add("--outbox", action="store_true",
        help="also send what waits in the outbox; of several processes, the first does")
    # fmt: on


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that beanstalk_daemon has, too."""
    # fmt: off
    add = parser.add_argument
    add("--processes", type=integer(1, 100), default=1,
        help="processes with that number of threads each; several use more than one CPU "
             "(default %(default)s)")
    add("--wait", type=integer(1, MAX_WAIT_SECONDS), default=_DEFAULTS.wait,
        help="seconds of a long poll; with fewer the worker stops sooner and sends more requests "
             "(default %(default)s)")
    add("--grace", type=seconds, default=_DEFAULTS.grace,
        help="seconds for which running tasks may continue after a stop (default %(default)g)")
    add("--max-tasks", type=integer(1, 2**31),
        help="stop after this number of tasks; each process counts its own")
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
    add("--log-level", choices=log_output.LEVELS,
        help="what is logged (default INFO, if the project's LOGGING has no handler for it)")
    # fmt: on


def _check_queues(names: Sequence[str]) -> None:
    """Refuse a name that is not an alias. A queue that does not exist yet is waited for."""
    try:
        for name in names:
            resolve_address(name, conf.get_config())
    except UnknownQueue as exc:
        raise CommandError(str(exc)) from exc


def options_of_every_worker(options: dict[str, Any]) -> dict[str, Any]:
    """Return the WorkerOptions that both commands have."""
    return {name: options[name] for name in ("wait", "grace", "max_tasks", "burst")}


def _report_burst(worker: Worker) -> None:
    """Log how much is left for later. Raise CommandError if a delivery did not succeed."""
    for queue in worker.queues:
        with suppress(SchedulingError):
            if delayed := open_queue(queue.name).delayed():
                logger.warning("burst ended queue=%s delayed=%d", queue.name, delayed)
    if failed := worker.counters.failed:
        deliveries = "1 delivery" if failed == 1 else f"{failed} deliveries"
        raise CommandError(f"{deliveries} did not succeed; the log says why")


def _make_scheduler(options: dict[str, Any]) -> Scheduler | None:
    if not options["cron"]:
        return None
    return Scheduler(cron.load(options["cron"]), options["queues"][0])


def _make_relay(options: dict[str, Any]) -> outbox.OutboxRelay | None:
    found = outbox.registered() if options["outbox"] else None
    return found.relay() if found else None


def _ticks_of_first(worker: Worker, options: dict[str, Any]) -> Iterator[Tick]:
    """Yield the ticks that the first of several processes runs for all."""
    if options["embedded_metrics"]:
        threads = worker.options.threads * options["processes"]
        yield write_backlog(worker, sys.stdout, threads=threads)
    if scheduler := _make_scheduler(options):
        yield scheduler.tick(worker.is_stopping)


def _end_codes(options: dict[str, Any]) -> frozenset[int]:
    stops_by_itself = options["burst"] or options["max_tasks"]
    return EXIT_CODES_OF_AN_END if stops_by_itself else frozenset()


def _make_health(
    options: dict[str, Any],
    find_reason: Callable[[], str | None],
    find_figures: Callable[[], Sequence[Metric]],
) -> tuple[ProbeServer | None, list[Tick]]:
    """Return the server of ``--health-port``, which listens, and the tick of ``--health-file``."""
    port, file = options["health_port"], options["health_file"]
    option = "--health-file"
    try:
        if file:
            file.touch()
        option = "--health-port"
        server = (
            ProbeServer(*port, find_reason=find_reason, find_figures=find_figures) if port else None
        )
    except OSError as exc:
        raise CommandError(f"{option}: {exc}") from exc
    return server, [touch_while_healthy(find_reason, file)] if file else []
