"""``manage.py beanstalk_eb`` writes the files that Elastic Beanstalk reads, or checks them."""

from __future__ import annotations

import argparse
import difflib
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.checks import ERROR, CheckMessage
from django.core.management.base import CommandError

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.variables import BACKLOG_TOKEN, QUEUES, SIGNING_KEYS, TASKS
from beanstalk_dispatch.deploying import alarms, overview
from beanstalk_dispatch.deploying.application import find_application, project_name
from beanstalk_dispatch.deploying.eb_commands import commands, fresh_key
from beanstalk_dispatch.deploying.eb_files import BundleFile, bundle_files
from beanstalk_dispatch.deploying.plan import Plan, make_plan
from beanstalk_dispatch.deploying.procfile import (
    GUNICORN,
    PROCFILE,
    read_web_command,
    read_web_server,
    with_web_line,
)
from beanstalk_dispatch.deploying.settings_module import settings_module
from beanstalk_dispatch.management.arguments import integer
from beanstalk_dispatch.management.printing import ReportingCommand
from beanstalk_dispatch.problems import eb_check, web_boot
from beanstalk_dispatch.problems.findings import lines, ok
from beanstalk_dispatch.problems.requirements_check import REQUIREMENTS

_ASKED = {
    "web": "Name of the web environment",
    "worker": "Name of the worker environment",
    "region": "AWS region of the queues",
    "account": "AWS account number, which 'aws sts get-caller-identity' shows",
}
_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{2,38}[A-Za-z0-9]")
"""https://docs.aws.amazon.com/elasticbeanstalk/latest/api/API_CreateEnvironment.html"""
_REQUIREMENTS = ("requirements.txt", "Pipfile", "Dockerfile", "docker-compose.yml")
"""The files in which Elastic Beanstalk finds the packages to install.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/python-configuration-requirements.html
"""


class Command(ReportingCommand):
    """The command that makes a plan of configuration and options, and writes or checks files."""

    help = "Write the deployment files for Elastic Beanstalk, and print the commands."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of docs/elastic-beanstalk.md."""
        # fmt: off
        add = parser.add_argument
        add("--name", metavar="PROJECT",
            help="the name of the application (default: the package's, or the folder's)")
        add("--web", metavar="NAME", help="the web environment (default: PROJECT-web)")
        add("--worker", metavar="NAME", help="the worker environment (default: PROJECT-worker)")
        add("--region", help="the region of queues that are given by name")
        add("--account", metavar="NUMBER", help="the AWS account of queues that are given by name")
        add("--queue", metavar="ALIAS",
            help="the queue that the worker environment reads (default: the first one)")
        add("--processes", type=integer(1, 100), default=1,
            help="gunicorn's processes (default %(default)s)")
        add("--threads", type=integer(1, 1000), default=15,
            help="threads of each (default %(default)s)")
        add("--max-instances", type=integer(1, 10_000), metavar="NUMBER",
            help="scale the worker environment by its queue, up to this number of instances")
        add("--alarm-topic", type=_topic_or_address, metavar="TOPIC",
            help="the SNS topic that alarms go to: its ARN, or an e-mail address to make one for")
        add("--worker-bundle", action="store_true",
            help="this bundle is for workers only, so .ebextensions may have the daemon's options")
        add("--directory", type=Path, default=Path(), metavar="DIRECTORY",
            help="the root of the bundle (default: the working directory)")
        add("--check", action="store_true",
            help="write nothing; explain each difference, and exit with 1 if there is one")
        add("--overwrite", action="store_true",
            help="replace files that do not do what is needed")
        add("--no-input", action="store_true", help="ask nothing")
        # fmt: on
        self.add_report_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the files and print the commands, or check the files."""
        self._is_json: bool = options["json"]
        self._files: list[dict[str, str]] = []
        config = get_config()
        plan = self._make_plan(config, options)
        for warning in _missing_values(plan, config, options["directory"]):
            self.stderr.write(f"warning: {warning}")
        try:
            problems = eb_check.check(plan, options["directory"])
            if options["check"]:
                fine = [ok("files", "the files do what is needed")]
                booted = web_boot.boot(plan, options["directory"])
                self.report(itertools.chain(problems or fine, booted), options)
                return
            left = self._write_files(plan, problems, options)
        except BrokenPipeError:  # of what is printed
            raise
        except OSError as exc:
            raise CommandError(f"--directory: {exc}") from exc
        self._print_commands(plan, config)
        self._report_what_is_left(left, eb_check.check(plan, options["directory"]))

    def _make_plan(self, config: Config, options: dict[str, Any]) -> Plan:
        name = options["name"] or project_name(options["directory"])
        given = {key: options[key] for key in ("web", "worker", "region", "account", "queue")}
        if sys.stdin.isatty() and not (options["no_input"] or options["check"]):
            defaults = _asked_for(config, name)
            for key in [key for key in defaults if not given[key]]:
                given[key] = _ask_for(key, defaults[key])
        plan = make_plan(
            config,
            name=name,
            application=find_application(options["directory"]),
            processes=options["processes"],
            threads=options["threads"],
            is_shared=not options["worker_bundle"],
            max_instances=options["max_instances"],
            root=options["directory"],
            alarm_topic=options["alarm_topic"],
            **given,
        )
        for option, environment in (("--web", plan.web), ("--worker", plan.worker)):
            if not _ENVIRONMENT.fullmatch(environment):
                raise CommandError(
                    f"{environment!r} is not the name of an environment, which has 4 to 40 "
                    f"letters, digits and hyphens; add {option} NAME"
                )
        return plan

    # --- writing ---------------------------------------------------------------------------------

    def _write_files(
        self, plan: Plan, problems: list[CheckMessage], options: dict[str, Any]
    ) -> list[str]:
        """Write the files. Return those that differ and stay as they are."""
        root = options["directory"]
        faulty = {problem.obj for problem in problems if problem.level >= ERROR}
        has_timeouts = eb_check.TIMEOUTS in faulty
        left: list[str] = []
        for path, file in _needed_files(plan, root).items():
            current = _read_or_none(root / path)
            is_fine = path not in faulty and not (current and has_timeouts)
            if current == file.content or is_fine:
                self._note("unchanged", path)
                if file.is_executable:
                    (root / path).chmod(0o755)
            elif current is None or options["overwrite"]:
                self._write_one(root / path, path, current, file)
            else:
                self._note("different", path, _show_difference(path, current, file.content))
                left.append(path)
        return left

    def _report_what_is_left(self, left: list[str], problems: list[CheckMessage]) -> None:
        """Write the problems that remain, below the commands. Raise CommandError for an error."""
        found = [each for each in problems if not each.is_silenced()]
        if found:
            self.stderr.write("\n".join(lines(found)))
        if left:
            raise CommandError(
                f"not as needed: {', '.join(left)}; read the differences above, and add "
                "--overwrite to replace these files"
            )
        if errors := [str(each.obj) for each in found if each.level >= ERROR]:
            raise CommandError(f"not as needed: {', '.join(errors)}; the lines above say why")

    def _note(self, state: str, path: str, difference: str = "") -> None:
        """Write what became of a file, or keep it for the JSON."""
        self._files.append({"path": path, "state": state, "difference": difference})
        if not self._is_json:
            self.stdout.write("\n".join(filter(None, [f"{state}: {path}", difference])))

    def _write_one(self, target: Path, path: str, current: str | None, file: BundleFile) -> None:
        if current is None:
            self._note("written", path)
        else:
            self._note("replaced", path, _show_difference(path, current, file.content))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.content)
        if file.is_executable:
            target.chmod(0o755)

    def _print_commands(self, plan: Plan, config: Config) -> None:
        for warning in (*overview.warnings(), *plan.warnings(), *alarms.warnings(plan)):
            self.stderr.write(f"warning: {warning}")
        if config.signing_keys:
            self.stderr.write(
                f"warning: {SIGNING_KEYS.variable} is set here and not shown; set it on both "
                "environments as beanstalk_config --format eb --show-secrets writes it"
            )
        if config.backlog_token:
            self.stderr.write(
                f"warning: {BACKLOG_TOKEN.variable} is set here and not shown; set it on the "
                "environment whose backlog is read"
            )
        key = fresh_key() if plan.is_first and not config.signing_keys else None
        printed = list(commands(plan, config, key=key))
        if self._is_json:
            self.stdout.write(json.dumps({"files": self._files, "commands": printed}, indent=2))
        else:
            self.stdout.write("\n" + "\n".join(printed))


def _topic_or_address(argument: str) -> str:
    """Read a topic or an address as an argparse type."""
    if not alarms.is_topic_or_address(argument):
        raise argparse.ArgumentTypeError(
            f"expected an e-mail address, or arn:aws:sns:REGION:ACCOUNT:NAME, not {argument!r}"
        )
    return argument


def _missing_values(plan: Plan, config: Config, root: Path) -> Iterator[str]:
    """Yield the values that are missing from the files and the commands."""
    if not config.queues:
        yield (
            f"{QUEUES.variable} is not set here, so there is one queue, {plan.read_queue.name!r} "
            f"with the alias {plan.read_queue.alias!r}"
        )
    if not (config.table or config.tasks):
        yield (
            f"{TASKS.variable} is not set here, so no time limit of a task is known, and the "
            "commands do not set it either"
        )
    server = plan.application.settings
    if server != settings_module():
        yield (
            f"this is made with the settings {settings_module()}, but the servers will use "
            f"{server}: run it with {ENVIRONMENT_VARIABLE}={server}"
        )
    elif settings.DEBUG:
        yield (
            f"DEBUG is on in {server}: on the servers it shows settings and code to everybody; "
            f"if they have other settings, run it with {ENVIRONMENT_VARIABLE}"
        )
    if any((root / name).exists() for name in _REQUIREMENTS):
        return
    folder = root.resolve()
    if (folder.parent / REQUIREMENTS).exists():
        yield (
            f"{REQUIREMENTS} is in {folder.parent}, so this is not the root of the bundle; run the "
            f"command there: python {folder.name}/manage.py beanstalk_eb"
        )
    else:
        yield (
            "there is no requirements.txt, from which Elastic Beanstalk installs your packages; "
            "'pip freeze > requirements.txt' writes one, or "
            "'uv export --no-hashes --no-emit-project -o requirements.txt'"
        )


def _asked_for(config: Config, name: str) -> dict[str, str | None]:
    """Return the questions to ask, each with its default.

    A queue's URL or ARN has region and account.
    """
    defaults: dict[str, str | None] = {"web": f"{name}-web", "worker": f"{name}-worker"}
    if not config.queues or any(each.url is None for each in config.queues.values()):
        defaults |= {"region": config.region, "account": None}
    return defaults


def _ask_for(key: str, default: str | None) -> str | None:
    shown = f" [{default}]" if default else ""
    return input(f"{_ASKED[key]}{shown}: ").strip() or None


def _needed_files(plan: Plan, root: Path) -> Mapping[str, BundleFile]:
    """Return the files of the plan. In a Procfile, other processes and web servers stay."""
    files = bundle_files(plan)
    if current := _read_or_none(root / PROCFILE):
        server, has_server = read_web_server(root), read_web_command(root) is not None
        is_ours = not has_server or (server is not None and server.program is GUNICORN)
        needed = with_web_line(current, files[PROCFILE].content) if is_ours else current
        files[PROCFILE] = BundleFile(content=needed)
    return files


def _read_or_none(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _show_difference(path: str, current: str, needed: str) -> str:
    lines = difflib.unified_diff(
        current.splitlines(), needed.splitlines(), f"{path} now", f"{path} needed", lineterm=""
    )
    return "\n".join(f"  {line}" for line in lines)
