"""``manage.py beanstalk_doctor`` examines a project and its machine, and suggests commands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage

from beanstalk_dispatch.management.printing import ReportingCommand
from beanstalk_dispatch.problems import aws_doctor, doctor, machine_doctor
from beanstalk_dispatch.problems.findings import safely


class Command(ReportingCommand):
    """Report the findings. The exit code is 1 if one of them is an error."""

    help = "Find out why messages would not run, and say what to type."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of docs/elastic-beanstalk.md."""
        # fmt: off
        add = parser.add_argument
        add("--http-path", metavar="PATH",
            help="the daemon's HttpPath (default: that of the project's files)")
        add("--cron", type=Path, metavar="FILE",
            help="the cron.yaml of the bundle (default: that of the working directory)")
        add("--aws", action="store_true",
            help="ask AWS too: the credentials, and every queue of the configuration")
        add("--machine", action="store_true",
            help="look at this machine too, if it is a worker instance of Elastic Beanstalk")
        # fmt: on
        self.add_report_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Report the findings."""
        self.report(_run_examinations(options), options)


def _run_examinations(options: dict[str, Any]) -> Iterator[CheckMessage]:
    yield from doctor.examine(path=options["http_path"], cron_file=options["cron"])
    if options["aws"]:
        yield from safely("aws", aws_doctor.examine())
    if options["machine"]:
        yield from safely("machine", machine_doctor.examine())
