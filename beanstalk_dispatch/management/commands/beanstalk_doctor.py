"""``manage.py beanstalk_doctor`` examines a project and its machine, and says what to type."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beanstalk_dispatch.management.printing import PrintingCommand
from beanstalk_dispatch.problems import aws_doctor, doctor, machine_doctor
from beanstalk_dispatch.problems.findings import Finding, FindingStatus, as_dict, lines, safely


class Command(PrintingCommand):
    """Writes a line for each finding. The exit code is 1 if one of them is a failure."""

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
        add("--json", action="store_true", help="write JSON, for programs")
        add("--fail-level", choices=["warning", "failure"], default="failure",
            help="what makes the exit code 1 (default %(default)s)")
        # fmt: on

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the findings as they are made, or all of them as JSON."""
        found: list[Finding] = []
        for finding in _run_examinations(options):
            found.append(finding)
            if not options["json"]:
                for line in lines([finding]):
                    self.stdout.write(line)
        if options["json"]:
            self.stdout.write(json.dumps(as_dict(found), indent=2))
        bad = {FindingStatus.FAILURE}
        if options["fail_level"] == "warning":
            bad.add(FindingStatus.WARNING)
        if any(finding.status in bad for finding in found):
            sys.exit(1)


def _run_examinations(options: dict[str, Any]) -> Iterator[Finding]:
    yield from doctor.examine(path=options["http_path"], cron_file=options["cron"])
    if options["aws"]:
        yield from safely("aws", aws_doctor.examine())
    if options["machine"]:
        yield from safely("machine", machine_doctor.examine())
