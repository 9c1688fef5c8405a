"""manage.py beanstalk_worker QUEUE…: run tasks here, or stand in for aws-sqsd."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from beanstalk_dispatch import conf, cron, handlers, monitoring, sqsd
from beanstalk_dispatch.signals import worker_stopped
from beanstalk_dispatch.worker import Options, Worker

logger = logging.getLogger(__name__)


def between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is not within {low} to {high}")
        return number

    return parse


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, between(0, 65535)(port)


class Command(BaseCommand):
    help = "Receive messages from SQS queues and run their tasks, or POST them as aws-sqsd does."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        defaults, daemon = Options(), sqsd.Options()
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
            type=float,
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
        worker = self._worker(options)
        if options["cron"]:
            scheduler = cron.Scheduler(cron.load(options["cron"]), options["queues"][0])
            threading.Thread(
                target=scheduler.run, args=(worker.is_stopping,), name="cron", daemon=True
            ).start()
        _stop_on_signals(worker)
        if options["health_port"]:
            host, port = options["health_port"]
            monitoring.HealthServer(worker, host=host, port=port)
        exit_code = self._run(worker, options["health_file"])
        worker_stopped.send_robust(sender=type(self), exit_code=exit_code)
        if exit_code or worker.counters.running:
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
            daemon = sqsd.Options(
                http_connections=threads or sqsd.Options().http_connections,
                inactivity_timeout=options["inactivity_timeout"],
                visibility_timeout=visibility or sqsd.Options().visibility_timeout,
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


def _stop_on_signals(worker: Worker) -> None:
    def on_signal(signum: int, frame: FrameType | None) -> None:
        if worker.is_stopping():
            os._exit(128 + signum)
        worker.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
