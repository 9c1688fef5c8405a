"""manage.py beanstalk_worker QUEUE…: run tasks here, or stand in for aws-sqsd."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from beanstalk_dispatch import conf, cron
from beanstalk_dispatch.endpoint import sqsd
from beanstalk_dispatch.exceptions import UnknownQueue
from beanstalk_dispatch.signals import worker_stopped
from beanstalk_dispatch.sqs.opening import resolve_address
from beanstalk_dispatch.worker import cron_scheduler, monitoring
from beanstalk_dispatch.worker import runners as handlers
from beanstalk_dispatch.worker.prefetch import Options
from beanstalk_dispatch.worker.worker import Worker

_EXIT_WITHIN = 10.0  # seconds for what is done at the exit of a process with a thread that is stuck


def between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is not within {low} to {high}")
        return number

    return parse


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), between(0, 65535)(port)


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return number


class Command(BaseCommand):
    help = "Receive messages from SQS queues and run their tasks, or POST them as aws-sqsd does."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        defaults, daemon = Options(), sqsd.SqsdOptions()
        add = parser.add_argument
        add("queues", nargs="+", metavar="QUEUE", help="alias, name, URL or ARN of a queue")
        add(
            "--threads",
            type=between(1, 100),
            help=f"tasks at a time (default {defaults.threads}, "
            f"with --post-to {daemon.http_connections}, as the daemon's HttpConnections)",
        )
        add(
            "--wait",
            type=between(1, 20),
            default=defaults.wait,
            help="seconds of a long poll; shorter stops sooner and polls more (default 20)",
        )
        add(
            "--visibility-timeout",
            type=between(1, 43200),
            help="seconds a received message is "
            f"hidden (default {defaults.visibility}, with --post-to {daemon.visibility_timeout})",
        )
        add(
            "--grace",
            type=seconds,
            default=defaults.grace,
            help="seconds running tasks get to finish at a stop (default 30)",
        )
        add("--max-tasks", type=between(1, 2**31), help="stop after so many tasks")
        add("--burst", action="store_true", help="stop when the queues are empty")
        add("--health-port", type=address, metavar="[HOST:]PORT",
            help="answer 200 or 503 there, and Prometheus text at /metrics")  # fmt: skip
        add("--health-file", type=Path, metavar="FILE", help="touch FILE each second while well")
        post = parser.add_argument_group("standing in for aws-sqsd")
        post.add_argument("--post-to", metavar="URL", help="POST each message there")
        post.add_argument(
            "--error-visibility-timeout",
            type=between(0, 43200),
            default=daemon.error_visibility_timeout,
            help="seconds until a failed message comes back (default 2)",
        )
        post.add_argument(
            "--inactivity-timeout",
            type=between(1, 36000),
            default=daemon.inactivity_timeout,
            help="seconds to wait for an answer (default 299)",
        )
        post.add_argument("--cron", type=Path, metavar="FILE", help="send the tasks of a cron.yaml")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["post_to"] and not conf.get_config().worker:
            variable = conf.SETTINGS["worker"].variable
            raise CommandError(f"this machine is not a worker; set {variable}=True to run tasks")
        _check_queues(options["queues"])
        worker = self._worker(options)
        if options["cron"]:
            scheduler = cron_scheduler.Scheduler(cron.load(options["cron"]), options["queues"][0])
            threading.Thread(
                target=scheduler.run, args=(worker.is_stopping,), name="cron", daemon=True
            ).start()
        _stop_on_signals(worker)
        _show_health(worker, port=options["health_port"], file=options["health_file"])
        exit_code = self._run(worker, options["health_file"])
        must_exit = exit_code or worker.counters.running
        if must_exit:
            _exit_later(exit_code)
        worker_stopped.send_robust(sender=type(self), exit_code=exit_code)
        if must_exit:
            # Past a thread that still runs: the interpreter's own exit could wait for it.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(exit_code)

    def _run(self, worker: Worker, health_file: Path | None) -> int:
        ticks = [monitoring.touch(worker, health_file)] if health_file else []
        with ExitStack() as stack:
            if sys.stderr.isatty():
                line = monitoring.StatusLine(worker, sys.stderr)
                line.attach()
                stack.callback(line.close)
                ticks.append(line.tick)
            else:
                ticks.append(monitoring.progress(worker))
            return worker.run(*ticks)

    def _worker(self, options: dict[str, Any]) -> Worker:
        defaults = Options()
        visibility, threads = options["visibility_timeout"], options["threads"]
        handler: Any = handlers.run_here
        if url := options["post_to"]:
            daemon = sqsd.SqsdOptions(
                http_connections=threads or sqsd.SqsdOptions().http_connections,
                inactivity_timeout=options["inactivity_timeout"],
                visibility_timeout=visibility or sqsd.SqsdOptions().visibility_timeout,
                error_visibility_timeout=options["error_visibility_timeout"],
            )
            visibility, threads = daemon.visibility_timeout, daemon.http_connections
            try:
                handler = handlers.Post(url, daemon)
            except ValueError as exc:
                raise CommandError(f"--post-to: {exc}") from exc
        return Worker(
            options["queues"],
            handler,
            Options(
                threads=threads or defaults.threads,
                wait=options["wait"],
                visibility=visibility or defaults.visibility,
                heartbeat=not options["post_to"],
                grace=options["grace"],
                max_tasks=options["max_tasks"],
                burst=options["burst"],
            ),
        )


def _check_queues(names: Sequence[str]) -> None:
    """A wrong name will not become right by waiting for it."""
    try:
        for name in names:
            resolve_address(name, conf.get_config())
    except UnknownQueue as exc:
        raise CommandError(str(exc)) from exc


def _show_health(worker: Worker, *, port: tuple[str, int] | None, file: Path | None) -> None:
    option = "--health-file"
    try:
        if file:
            file.touch()
        option = "--health-port"
        if port:
            monitoring.HealthServer(worker, host=port[0], port=port[1])
    except OSError as exc:
        raise CommandError(f"{option}: {exc}") from exc


def _exit_later(exit_code: int) -> None:
    """Exit even if a stuck task holds a lock that a log handler or a receiver waits for."""
    timer = threading.Timer(_EXIT_WITHIN, os._exit, [exit_code])
    timer.daemon = True
    timer.start()


def _stop_on_signals(worker: Worker) -> None:
    """The first signal stops the worker, the second ends the process at once."""
    received = []

    def on_signal(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        if len(received) > 1:
            os._exit(128 + signum)
        worker.stop()

    def restore() -> None:
        """What a task forks is no worker, and must end when it is told to."""
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is on_signal:
                signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    os.register_at_fork(after_in_child=restore)
