"""The documentation, held to the code: its tables, its links, and every snippet in it."""

from __future__ import annotations

import argparse
import ast
import asyncio
import configparser
import functools
import inspect
import io
import itertools
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import environ
import gunicorn.config
import pytest
import yaml
from botocore import xform_name
from django.core.cache import caches
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.test import override_settings
from django.urls import resolve
from packaging.requirements import Requirement

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.conf import SETTINGS, casts, get_config
from beanstalk_dispatch.conf.policies import policies
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.conf.secret_casts import MIN_KEY_LENGTH
from beanstalk_dispatch.conf.variables import BACKLOG_PER_THREAD, SIGNING_KEYS
from beanstalk_dispatch.consumers.poller.embedded_metrics import backlog_line
from beanstalk_dispatch.contrib import core_app
from beanstalk_dispatch.contrib.outbox import checks as outbox_checks
from beanstalk_dispatch.contrib.results import checks as results_checks
from beanstalk_dispatch.contrib.sentry import spans
from beanstalk_dispatch.contrib.sentry.variables import SENTRY
from beanstalk_dispatch.deploying.eb_commands import commands as eb_commands
from beanstalk_dispatch.deploying.eb_files import bundle_files, daemon_options
from beanstalk_dispatch.deploying.ladder import MAX_RECEIVES
from beanstalk_dispatch.deploying.plan import Plan, make_plan
from beanstalk_dispatch.deploying.property_formats import FORMATS
from beanstalk_dispatch.messages import cron
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message, wrap
from beanstalk_dispatch.messages.outcomes import OUTCOMES, Outcome, Result, Successor
from beanstalk_dispatch.problems import checks
from beanstalk_dispatch.problems.findings import catalogue
from beanstalk_dispatch.running import dead_letters
from beanstalk_dispatch.sqs.backlog import Backlog, QueueBacklog, wanted_processes
from beanstalk_dispatch.sqs.opening import open_beside, open_queue
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES
from benchmarks.autoscaling import scenarios, simulate
from tests import fuzzing
from tests.bundles import SHOP
from tests.conftest import Environment, create_queue
from tests.entries import add_entry
from tests.runs import deliver, run_of

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
ELASTIC_BEANSTALK = ROOT / "docs" / "elastic-beanstalk.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TASKS = "shop.tasks"  # the module the documentation's tasks are in
DJANGO_TASKS = {"DISPATCH_TASKS": TASKS, "DISPATCH_RESULTS": "default"}
VARIABLES = {setting.variable: setting for setting in SETTINGS.values()}
KNOWN = {**VARIABLES, **{setting.variable: setting for setting in SENTRY.settings}}
SQSD = "aws:elasticbeanstalk:sqsd"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A fenced block; ``line`` is that of its first line."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        """The file its first line names (``# shop/tasks.py``), or nothing."""
        found = re.match(r"# ([\w/]+\.py)\b", self.text)
        return found[1] if found else ""


@functools.cache
def snippets_of(document: Path) -> list[Snippet]:
    text = document.read_text()
    return [
        Snippet(
            document=document,
            line=text.count("\n", 0, match.start(2)) + 1,
            language=match[1],
            text=match[2],
        )
        for match in _FENCE.finditer(text)
    ]


SNIPPETS = [snippet for document in DOCUMENTS for snippet in snippets_of(document)]
_executed: set[str] = set()


def every(language: str) -> pytest.MarkDecorator:
    """Run a test with each snippet of ``language``, which counts as executed then."""
    _executed.add(language)
    found = [snippet for snippet in SNIPPETS if snippet.language == language]
    return pytest.mark.parametrize("snippet", found, ids=str)


def table_rows(document: Path, heading: str) -> list[list[str]]:
    """The cells of the table whose first column has this heading, code marks removed."""
    lines = iter(document.read_text().splitlines())
    body = itertools.dropwhile(lambda line: not line.startswith(f"| {heading} |"), lines)
    rows = itertools.takewhile(lambda line: line.startswith("|"), body)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows][2:]


# --- tables ----------------------------------------------------------------------------------


def test_the_configuration_table_is_the_settings() -> None:
    rows = table_rows(ROOT / "docs" / "configuration.md", "Variable")
    assert rows == [
        [f"`{setting.variable}`", setting.form, setting.default_text, setting.meaning]
        for setting in SETTINGS.values()
    ]


def test_the_sentry_table_is_the_variables() -> None:
    rows = table_rows(ROOT / "docs" / "sentry.md", "Sentry variable")
    assert rows == [
        [f"`{setting.variable}`", setting.form, setting.default_text, setting.meaning]
        for setting in SENTRY.settings
    ]


def test_the_sentry_tags_are_those_of_an_event() -> None:
    tags = spans.facts_of(run_of(Message(function="f"), queue="q"))
    rows = table_rows(ROOT / "docs" / "sentry.md", "Tag")
    assert [row[0].strip("`") for row in rows] == [*tags, "outcome", "final", "dead_lettered"]


def test_the_check_ids_are_those_of_the_code() -> None:
    modules = Path(str(checks.__file__)).parent.parent.rglob("*.py")
    own = [outbox_checks.__file__, results_checks.__file__, core_app.__file__]
    used = {
        each
        for path in [*modules, *own]
        for each in re.findall(
            r"(?:\b(?:problem|_of_one_task)\(\s*| else )\"([A-Z]\d+)\"", Path(str(path)).read_text()
        )
    }
    known = [number for found in catalogue().values() for number in found]
    assert len(known) == len(set(known))
    assert used == set(known)
    assert list(catalogue()["check"]) == sorted(catalogue()["check"])


def test_each_variable_that_a_finding_names_exists() -> None:
    named = re.findall(r"BEANSTALK_[A-Z_]+[A-Z]", json.dumps(catalogue()))
    assert {*named} - {"BEANSTALK_DISPATCH"} <= VARIABLES.keys()


def test_no_page_has_a_key_that_passes_the_checks() -> None:
    """Somebody would copy it. The check of published keys knows that of .env.example alone."""
    pages = [*DOCUMENTS, ROOT / ".env.example", ROOT / "example_settings" / "demo.py"]
    text = "\n".join(path.read_text() for path in pages)
    values = re.findall(r"SIGNING_KEYS\"?[=:] ?[\"']?([\w -]+)", text)
    keys = {key for value in values for key in value.split() if len(key) >= MIN_KEY_LENGTH}
    assert "THE-KEY" in values
    assert keys == {SIGNING_KEYS.example}


_SENT = {Outcome.RETRY: Successor.COPY, Outcome.DEFERRED: Successor.COPY}
"""What the endpoint, which cannot hide a message, sends for these outcomes."""


def test_the_status_table_is_the_views() -> None:
    rows = table_rows(ROOT / "docs" / "failures.md", "Outcome")
    assert {row[0].strip("`"): int(row[1]) for row in rows} == {
        str(outcome): Result(outcome=outcome, successor=_SENT.get(outcome)).status
        for outcome in OUTCOMES
    }


@pytest.mark.parametrize(
    ("command", "page", "heading"),
    [
        ("beanstalk_worker", "worker.md", "Option"),
        ("beanstalk_daemon", "local.md", "Option of beanstalk_daemon"),
        ("beanstalk_config", "elastic-beanstalk.md", "Option of beanstalk_config"),
        ("beanstalk_doctor", "elastic-beanstalk.md", "Option of beanstalk_doctor"),
        ("beanstalk_eb", "elastic-beanstalk.md", "Option of beanstalk_eb"),
        ("beanstalk_lambda", "lambda.md", "Option"),
    ],
)
def test_the_options_of_a_command_are_those_of_its_page(
    command: str, page: str, heading: str
) -> None:
    def options(command: BaseCommand) -> set[str]:
        parser = command.create_parser("manage.py", "command")
        shown = [each for each in parser._actions if each.help != argparse.SUPPRESS]
        return {name for action in shown for name in action.option_strings}

    rows = table_rows(ROOT / "docs" / page, heading)
    known = options(load_command_class("beanstalk_dispatch", command)) - options(BaseCommand())
    assert {name.strip(" `") for row in rows for name in row[0].split(",")} == known


def test_the_files_of_beanstalk_eb_are_those_of_its_page(env: Environment) -> None:
    env(DISPATCH_TABLE="night=tests.unit.deploying.test_plan.night", DISPATCH_TASK_TIMEOUT="4m")
    shared, plan = (
        make_plan(get_config(), name="shop", application=SHOP, region="eu-west-1",
                  account="123456789012", is_shared=is_shared, max_instances=8)
        for is_shared in (True, False)
    )  # fmt: skip
    rows = table_rows(ELASTIC_BEANSTALK, "File")
    written = bundle_files(plan).keys() | bundle_files(shared).keys()
    assert {row[0].strip("`") for row in rows} == written
    rows = table_rows(ELASTIC_BEANSTALK, "Timeout")
    assert [row[1] for row in rows] == [f"{each:g} s" for each in astuple(plan.ladder)]


def test_the_formats_of_beanstalk_config_are_those_of_its_page() -> None:
    rows = table_rows(ELASTIC_BEANSTALK, "Format")
    assert [row[0].strip("`") for row in rows] == ["table", "json", *FORMATS]


# --- .env.example ----------------------------------------------------------------------------

ENV_EXAMPLE = ROOT / ".env.example"


def read_env(text: str) -> dict[str, str]:
    """What django-environ reads from an env file. Fails on a line it would pass over."""
    values: dict[str, str] = {}
    reader: Any = type("Reader", (environ.Env,), {"ENVIRON": values})
    reader.read_env(io.StringIO(text))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(values) == len(lines)
    return values


def uncommented() -> str:
    return re.sub(
        r"^# (?=(?:BEANSTALK|SENTRY)_\w+=)", "", ENV_EXAMPLE.read_text(), flags=re.MULTILINE
    )


def test_env_example_has_every_variable_below_its_meaning() -> None:
    described = re.findall(r"^# (.+)\n((?:BEANSTALK|SENTRY)_\w+)=", uncommented(), re.MULTILINE)
    assert described == [(known.meaning, name) for name, known in KNOWN.items()]


def test_env_example_sets_nothing_that_nobody_reads() -> None:
    settings = (ROOT / "example_settings" / "settings.py").read_text()
    others = read_env(uncommented()).keys() - KNOWN.keys()
    assert others == {name for name in others if f'("{name}"' in settings} != set()


def test_env_example_values_cast() -> None:
    values = read_env(uncommented())
    assert all(setting.cast(values[variable]) for variable, setting in KNOWN.items())


def test_a_shell_reads_env_example_as_django_environ_does(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(uncommented())
    script = 'set -a; . "$0"; exec env -0'
    run = subprocess.run(
        ["/bin/sh", "-c", script, path], env={"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    values = dict(item.split("=", 1) for item in run.stdout.decode().split("\0") if item)
    expected = read_env(uncommented())
    assert {name: values.get(name) for name in expected} == expected


@pytest.mark.slow
def test_the_example_project_starts_with_env_example() -> None:
    checked = manage(ROOT, "example_settings.settings", read_env(ENV_EXAMPLE.read_text()), "check")
    assert checked.returncode == 0, checked.stderr
    assert "start worker=True" in checked.stderr


def manage(
    where: Path, settings: str, variables: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a management command in a process that logs its start, as a server does."""
    program = (
        "import sys; from django.core import management as m; m.execute_from_command_line(sys.argv)"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=where,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{where}{os.pathsep}{ROOT}",
            "DJANGO_SETTINGS_MODULE": settings,
            **variables,
        },
        text=True,
        capture_output=True,
        check=False,
    )


# --- every snippet is executed ---------------------------------------------------------------


def test_every_fence_is_a_snippet() -> None:
    for document in DOCUMENTS:
        assert document.read_text().count("```") == 2 * len(snippets_of(document)), document


def test_every_snippet_language_is_executed() -> None:
    assert {snippet.language for snippet in SNIPPETS} == _executed


# --- variables, wherever they are set --------------------------------------------------------


def long_enough(keys: str) -> str:
    """Keys of a page as one writes them: THE-KEY stands for a long random string."""
    return re.sub("-(KEY|TOKEN)", r"-\1-0123456789abcdef", keys)


# What the tutorial's own settings read.
OWN_PROPERTIES = {"DATABASE_URL", "DJANGO_DEBUG", "DJANGO_SECRET_KEY"}


def cast(name: str, value: str) -> None:
    """Fail unless ``name`` is a variable, or the file of one, and ``value`` fits it."""
    if name in OWN_PROPERTIES:
        return
    if name in KNOWN:
        KNOWN[name].cast(long_enough(value) if KNOWN[name].secret else value)
    else:
        assert name.removesuffix("_FILE") in KNOWN
        assert Path(value).is_absolute()


def cast_all(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        cast(name, value)


@every("ini")
def test_ini(snippet: Snippet) -> None:
    cast_all(read_env(snippet.text))


# --- shell -----------------------------------------------------------------------------------

# What a value of an environment property may be made of, by AWS's own page:
# https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/environments-cfg-softwaresettings.html
_PROPERTY = re.compile(r"""[A-Za-z0-9\s_.:/=+\\@'"-]+""")
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*", re.DOTALL)
_SEPARATORS = frozenset({";", "&&", "||", "|", "&"})


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell script."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        for is_separator, words in itertools.groupby(lexer, _SEPARATORS.__contains__):
            if not is_separator:
                yield list(words)


def assignments(words: Sequence[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if _ASSIGNMENT.fullmatch(word))


def check_command(words: list[str]) -> None:
    own = list(itertools.takewhile(_ASSIGNMENT.fullmatch, words))
    cast_all(assignments(own))
    command, *arguments = words[len(own) :]
    COMMANDS[command](arguments)


def check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for each in arguments:  # a target, or a variable with its value
        name, is_variable, _ = each.partition("=")
        assert re.search(rf"^{name}{r' [?]=' if is_variable else ':'}", makefile, re.MULTILINE), (
            each
        )


def check_python(arguments: list[str]) -> None:
    kind, *rest = arguments
    {"manage.py": check_manage, "-c": check_code, "-m": check_module}[kind](rest)


def check_manage(arguments: list[str]) -> None:
    name, *rest = arguments
    app = get_commands()[name]
    assert isinstance(app, str)
    load_command_class(app, name).create_parser("manage.py", name).parse_args(rest)


def check_code(arguments: list[str]) -> None:
    (code,) = arguments
    exec(code, {})


def check_module(arguments: list[str]) -> None:
    module, path = arguments
    if module == "venv":
        assert path == "../shop-venv"  # beside the bundle, which has no need of it
    else:
        assert module == "pytest"
        assert (ROOT / path).exists()


def check_git(arguments: list[str]) -> None:
    command, address = arguments
    assert command == "clone"
    assert address == PROJECT["urls"]["Source"]


def check_directory(arguments: list[str]) -> None:
    """That of the clone."""
    assert arguments == [PROJECT["urls"]["Source"].rpartition("/")[2]]


def check_startproject(arguments: list[str]) -> None:
    assert arguments == ["startproject", "shop", "."]


def check_export(arguments: list[str]) -> None:
    values = assignments(arguments)
    assert len(values) == len(arguments)
    cast_all(values)


def check_pip(arguments: list[str]) -> None:
    if arguments[0] == "freeze":
        assert arguments[1:] == [">", "requirements.txt"]
        return
    requirement = Requirement(arguments[-1])
    known = {
        "install": PROJECT["name"],
        "uninstall": "beanstalk-dispatch",  # the package that ours replaces
    }
    assert requirement.name == known[arguments[0]]
    assert requirement.extras <= PROJECT["optional-dependencies"].keys()


def check_moto_server(arguments: list[str]) -> None:
    assert entry_points(group="console_scripts", name="moto_server")
    assert arguments == ["-p", "5000"]
    assert "127.0.0.1:5000" in ENV_EXAMPLE.read_text()


def check_source(arguments: list[str]) -> None:
    assert arguments in (
        ["./.env"], ["/var/app/venv/*/bin/activate"], ["../shop-venv/bin/activate"],
    )  # fmt: skip


def check_set(arguments: list[str]) -> None:
    assert arguments in (["-a"], ["+a"])


def eb_parser() -> argparse.ArgumentParser:
    """The part of the EB CLI that the documentation uses."""
    parser = argparse.ArgumentParser("eb")
    subparsers = parser.add_subparsers(required=True)
    setenv = subparsers.add_parser("setenv")
    setenv.add_argument("-e", "--environment", required=True)
    setenv.add_argument("properties", nargs="+")
    create = subparsers.add_parser("create")
    create.add_argument("environment")
    create.add_argument("-t", "--tier", choices=["webserver", "worker"])
    create.add_argument("-ip", "--instance_profile")
    create.add_argument("--sample", action="store_true")
    init = subparsers.add_parser("init")
    init.add_argument("application")
    init.add_argument("-p", "--platform")
    init.add_argument("-r", "--region")
    terminate = subparsers.add_parser("terminate")
    terminate.add_argument("environment")
    terminate.add_argument("--force", action="store_true")
    for name in ("deploy", "logs", "printenv"):
        subparsers.add_parser(name).add_argument("environment")
    return parser


def check_eb(arguments: list[str]) -> None:
    properties = getattr(eb_parser().parse_args(arguments), "properties", [])
    values = assignments(properties)
    assert len(values) == len(properties)
    cast_all(values)
    for value in values.values():
        assert _PROPERTY.fullmatch(value), value


def check_aws(arguments: list[str]) -> None:
    """The service, the operation and each option are what botocore knows of AWS."""
    service, command, *rest = arguments
    session = botocore.session.get_session()
    model = session.get_service_model(service)
    if command == "wait":
        waiters = session.get_waiter_model(service)
        name = next(n for n in waiters.waiter_names if xform_name(n, "-") == rest[0])
        operation = waiters.get_waiter(name).operation
    else:
        operation = next(n for n in model.operation_names if xform_name(n, "-") == command)
    shape: Any = model.operation_model(operation).input_shape
    known = {f"--{xform_name(member, '-')}" for member in shape.members} | {
        "--output",
        "--query",
        "--region",
    }
    # The AWS CLI writes False with --no-.
    options = {word.replace("--no-", "--") for word in rest if word.startswith("--")}
    assert options <= known
    assert {f"--{xform_name(member, '-')}" for member in shape.required_members} <= options


def check_touch(arguments: list[str]) -> None:
    (file,) = arguments
    assert f"BEANSTALK_DISPATCH_DRAIN_FILE={file}" in (ROOT / "docs/failures.md").read_text()


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    ".": check_source,
    ".venv/bin/python": check_python,
    "/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl": lambda arguments: None,
    "aws": check_aws,
    "cd": check_directory,
    "django-admin": check_startproject,
    "eb": check_eb,
    "export": check_export,
    "git": check_git,
    "make": check_make,
    "moto_server": check_moto_server,
    "pip": check_pip,
    "python": check_python,
    "set": check_set,
    "source": check_source,
    "touch": check_touch,
}


@every("sh")
def test_sh(snippet: Snippet) -> None:
    subprocess.run(["/bin/sh", "-n"], input=snippet.text, text=True, check=True)
    found = list(commands(snippet.text))
    assert found
    for words in found:
        check_command(words)


# --- data ------------------------------------------------------------------------------------

# The daemon's options and their ranges:
# https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html#command-options-general-elasticbeanstalksqsd
_SQSD_RANGES = {
    "HttpConnections": (1, 100),
    "InactivityTimeout": (1, 36_000),
    "VisibilityTimeout": (0, 43_200),
    "ErrorVisibilityTimeout": (0, 43_200),
    "MaxRetries": (1, 100),
}


def check_option_settings(snippet: Snippet, content: Any, tmp_path: Path) -> None:
    options = dict(content[SQSD])
    assert resolve(options.pop("HttpPath", "/beanstalk_dispatch/dispatcher"))
    assert options.pop("MimeType", "application/json") == "application/json"
    for name, value in options.items():
        low, high = _SQSD_RANGES[name]
        assert low <= value <= high, name


def check_cron(snippet: Snippet, content: Any, tmp_path: Path) -> None:
    path = tmp_path / "cron.yaml"
    path.write_text(snippet.text)
    tasks = cron.load(path)
    assert [task.name for task in tasks] == [entry["name"] for entry in content]
    assert all(resolve(task.url) for task in tasks)
    assert {task.name for task in tasks} <= documented("BEANSTALK_DISPATCH_TABLE").keys()


def check_container_commands(snippet: Snippet, content: Any, tmp_path: Path) -> None:
    for entry in content.values():
        for words in commands(entry["command"]):
            check_command(words)


def check_files(snippet: Snippet, content: Any, tmp_path: Path) -> None:
    """Each file is JSON, and a container command reads it."""
    for path, each in content.items():
        assert json.loads(each["content"])
        assert f"file:{path}" in snippet.text


YAML: dict[str, Callable[[Snippet, Any, Path], None]] = {
    "option_settings": check_option_settings,
    "container_commands": check_container_commands,
    "cron": check_cron,
    "files": check_files,
    "packages": lambda snippet, content, tmp_path: None,
    "version": lambda snippet, content, tmp_path: None,  # checked with cron
}


@every("yaml")
def test_yaml(snippet: Snippet, tmp_path: Path) -> None:
    for key, content in yaml.safe_load(snippet.text).items():
        YAML[key](snippet, content, tmp_path)


def check_policy(content: Any) -> None:
    model = botocore.session.get_session().get_service_model("sqs")
    for statement in content["Statement"]:
        actions = statement["Action"]
        for name in [actions] if isinstance(actions, str) else actions:
            service, _, action = name.partition(":")
            assert (service, action in model.operation_names) == ("sqs", True)
        queue = QueueAddress.parse(statement["Resource"])
        known = {q.name for q in documented_queues().values()}
        assert queue.name in known | {f"{name}-dead-letter" for name in known}


def check_dead_letter(content: Any) -> None:
    reason = content["dead_letter"]
    real = dead_letters._describe_reason(run_of(), Outcome.FAILED)
    assert reason.keys() == real.keys()
    message = Message.decode(json.dumps(content), queue=reason["queue"])
    assert (message.id, message.function) == (reason["id"], reason["function"])
    assert message.attempt == reason["attempts"] + 1


def check_autoscaling(content: Any) -> None:
    """The answer of the backlog, or a line of embedded metrics."""
    queue = QueueBacklog(visible=1, in_flight=2, delayed=3, threads=4, wanted_processes=1)
    if "_aws" in content:
        real = json.loads(backlog_line("mail", queue))
        assert content["_aws"]["CloudWatchMetrics"] == real["_aws"]["CloudWatchMetrics"]
        assert content.keys() == real.keys()
        messages = content["Visible"] + content["InFlight"]
        assert content["WantedProcesses"] == wanted(messages, content["Threads"])
    else:
        real = Backlog(queues={"mail": queue}, problems={}, total=queue, asked_at=0).as_json()
        assert content.keys() == real.keys()
        queues = content["queues"].values()
        for each in (*queues, content["total"]):
            assert each.keys() == real["total"].keys()
            messages = each["visible"] + each["in_flight"]
            assert each["wanted_processes"] == wanted(messages, each["threads"])
        for name in ("visible", "in_flight", "delayed"):
            assert content["total"][name] == sum(each[name] for each in queues)


def wanted(messages: int, threads: int) -> int:
    return wanted_processes(messages, threads=threads, per_thread=BACKLOG_PER_THREAD.default)


# https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general-eks.html
CLUSTER_OPTIONS = {"max-replica", "scaler-type", "scaler-metadata", "scaler-auth-secret"}


def check_trigger(metadata: Mapping[str, str]) -> None:
    """The URL is one of ours, and the number is in the documented answer."""
    assert resolve(urlsplit(metadata["url"]).path).url_name == "beanstalk_backlog"
    assert metadata["targetValue"] == "1"
    found = next(json.loads(each.text) for each in SNIPPETS if '"age_seconds"' in each.text)
    for name in metadata["valueLocation"].split("."):
        found = found[name]
    assert isinstance(found, int)


def test_the_policy_of_an_operator() -> None:
    check_policy(json.loads(deployment_file("operator-policy.json")))


def test_the_commands_that_remove_the_tutorials_environments() -> None:
    for words in commands(deployment_file("remove.sh")):
        if words[:1] in (["eb"], ["aws"]):
            check_command(words)


def test_the_trigger_of_a_cluster_environment() -> None:
    content = json.loads(deployment_file("trigger.json"))
    options = {each["OptionName"]: each["Value"] for each in content}
    assert set(options) <= CLUSTER_OPTIONS
    check_trigger(json.loads(options["scaler-metadata"]))


def test_the_scaler_of_keda() -> None:
    authentication, scaled = yaml.safe_load_all(deployment_file("keda.yaml"))
    (trigger,) = scaled["spec"]["triggers"]
    assert (trigger["type"], trigger["metadata"]["authMode"]) == ("metrics-api", "bearer")
    assert [each["parameter"] for each in authentication["spec"]["secretTargetRef"]] == ["token"]
    assert trigger["authenticationRef"] == authentication["metadata"]
    check_trigger(trigger["metadata"])


def test_the_figures_of_the_fleet_are_those_of_the_simulation() -> None:
    rows = table_rows(ROOT / "docs" / "benchmarks.md", "Messages")
    for row, (_, load, make_scaler, start_seconds) in zip(rows, scenarios(), strict=True):
        found = simulate(load, make_scaler(), start_seconds=start_seconds)
        assert row[2] == (f"{found.drained_seconds:.0f} s" if load.burst else "")
        sizes = [int(number) for number in re.findall(r"\d+", row[3])]
        assert [sizes[0], sizes[-1]] == [min(found.sizes[1:]), max(found.sizes[1:])]
        assert int(row[4]) == found.flaps


JSON: dict[str, Callable[[Any], object]] = {
    "architecture.md": lambda content: (check_autoscaling if "_aws" in content else check_policy)(
        content
    ),
    "autoscaling.md": check_autoscaling,
    "configuration.md": casts.table,
    "dead-letters.md": check_dead_letter,
    "unique-limits-expiry.md": policies,
}


@every("json")
def test_json(snippet: Snippet) -> None:
    JSON[snippet.document.name](json.loads(snippet.text))


EXAMPLE = ROOT / "example_settings"


def deployment_file(name: str) -> str:
    """A file that the pages say to copy."""
    return (EXAMPLE / "deployment" / name).read_text()


NGINX = EXAMPLE / ".platform" / "nginx" / "conf.d" / "beanstalk_dispatch.conf"


@every("nginx")
def test_nginx(snippet: Snippet) -> None:
    directives = [line for line in NGINX.read_text().splitlines() if not line.startswith("#")]
    assert snippet.text.splitlines() == directives


def test_the_documented_daemon_options_are_the_examples() -> None:
    example = yaml.safe_load((EXAMPLE / ".ebextensions" / "worker.config").read_text())
    assert documented_daemon_options() == example["option_settings"][SQSD]


def test_the_documented_limits_are_in_order() -> None:
    found = re.search(r"proxy_read_timeout (\d+)s", NGINX.read_text())
    assert found
    variables = documented_properties("shop-worker")
    options = documented_daemon_options()
    limits = [
        casts.duration(variables["BEANSTALK_DISPATCH_TASK_TIMEOUT"]).total_seconds(),
        int(found[1]),
        options["InactivityTimeout"],
        options["VisibilityTimeout"],
    ]
    assert limits == sorted(set(limits))
    figures = [row[1] for row in table_rows(ELASTIC_BEANSTALK, "Timeout")]
    figures.remove("270 s")  # gunicorn's, which check_gunicorn compares
    assert figures == [f"{limit:g} s" for limit in limits]


def documented_daemon_options() -> dict[str, Any]:
    blocks = [yaml.safe_load(s.text) for s in snippets_of(ARCHITECTURE) if "yaml" in s.language]
    (options,) = [block["option_settings"][SQSD] for block in blocks if "option_settings" in block]
    return dict(options)


# --- signing keys ----------------------------------------------------------------------------

WEB, WORKER = "shop-web", "shop-worker"


def key_steps(key: str) -> list[tuple[str, str]]:
    """Environment and keys of each step of the procedure in configuration.md that has ``key``."""
    return [
        (words[3], long_enough(assignments(words)["BEANSTALK_DISPATCH_SIGNING_KEYS"]))
        for snippet in snippets_of(ROOT / "docs" / "configuration.md")
        if snippet.language == "sh" and f"KEYS={key}" in snippet.text
        for words in commands(snippet.text)
    ]


def sent(keys: Mapping[str, str]) -> set[bytes]:
    """What the web tier sends with these keys, and what a worker sends when that is retried."""
    body = Message(function="retry").encode(queue="q", keys=keys[WEB].split()).encode()
    with fuzzing.worker(DISPATCH_SIGNING_KEYS=keys[WORKER]) as worker:
        assert worker.post(body).status_code == 200
        (copy,) = worker.client.bodies
    return {body, copy.encode()}


def is_taken(body: bytes, keys: str) -> bool:
    with fuzzing.worker(DISPATCH_SIGNING_KEYS=keys) as worker:
        return worker.post(body).status_code == 200


def test_the_steps_that_change_a_key_refuse_no_message() -> None:
    steps = key_steps("OLD-KEY")
    assert len(steps) == 4
    keys = {WEB: long_enough("OLD-KEY"), WORKER: long_enough("OLD-KEY")}
    waiting = sent(keys)
    for number, (environment, value) in enumerate(steps, 1):
        before, keys = keys, keys | {environment: value}
        if number == len(steps):  # what came before the last step has been waited for
            waiting = sent(before)
        waiting |= {
            body  # while it is deployed, some machines have the one and some the other
            for web in (before, keys)
            for worker in (before, keys)
            for body in sent({WEB: web[WEB], WORKER: worker[WORKER]})
        }
        for body in waiting:
            assert is_taken(body, before[WORKER])
            assert is_taken(body, keys[WORKER])
    assert keys == {WEB: long_enough("NEW-KEY"), WORKER: long_enough("NEW-KEY")}


def test_signing_begins_with_the_web_tier() -> None:
    (first, key), (second, same) = key_steps("THE-KEY")
    assert (first, second, key) == (WEB, WORKER, same)
    signed = Message(function="record").encode(queue="q", keys=[key]).encode()
    unsigned = Message(function="record").encode(queue="q").encode()
    assert [is_taken(body, "") for body in (unsigned, signed)] == [True, True]
    assert [is_taken(body, key) for body in (unsigned, signed)] == [False, True]


# --- what is shown ---------------------------------------------------------------------------


@functools.cache
def log_patterns() -> Sequence[str]:
    return list(read_log_patterns())


def read_log_patterns() -> Iterator[str]:
    """Each logging call of the package, as a pattern of ``LEVEL logger message``."""
    for path in sorted((ROOT / "beanstalk_dispatch").rglob("*.py")):
        source = path.read_text()
        assignment = r'^(\w*logger) = logging\.getLogger\("([a-z_.]+)"\)$'
        names = dict(re.findall(assignment, source, re.MULTILINE))
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id=variable), attr=method)) if (
                    variable in names and method != "isEnabledFor"
                ) and (texts := [arg.value for arg in node.args if isinstance(arg, ast.Constant)]):
                    level = {"log": r"\w+", "exception": "ERROR"}.get(method, method.upper())
                    yield f"{level} {re.escape(names[variable])} {message_pattern(str(texts[0]))}"
                case ast.Call(
                    func=ast.Name(id="errors_logged"),
                    args=[ast.Name(id=variable), ast.Constant() | ast.JoinedStr() as text, *_],
                    keywords=options,
                ):
                    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                    line = template_of(parts)
                    level = ast.unparse(options[0].value) if options else "WARNING"
                    level = level.removeprefix("logging.")
                    yield f"{level} {names[variable]} {message_pattern(f'{line}%s error=%s')}"
                case ast.Assign(
                    targets=[ast.Name(id="lost_line" | "not_updated_line" as name)],
                    value=ast.Constant(value=str(line)),
                ):
                    end = "%s error=%s" if name == "not_updated_line" else ""
                    yield rf"\w+ beanstalk_dispatch.task.lease {message_pattern(f'{line}{end}')}"
                case ast.Assign(
                    targets=[ast.Name(id="line")], value=ast.JoinedStr(values=parts)
                ) if "spoiled" in ast.unparse(node):
                    yield f"CRITICAL {names['logger']} {message_pattern(template_of(parts))}"
                case _:
                    pass


def template_of(parts: Sequence[ast.expr]) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "%s" for part in parts)


def message_pattern(template: str) -> str:
    """A logging call's text, as a pattern of what it can become."""
    values = {"d": r"\d+", "f": r"[\d.]+", "g": r"[\d.]+", "r": r"['\"].*['\"]", "s": ".*"}
    parts = re.split(r"%[\d.]*([a-z])", template)
    return "".join(values[p] if i % 2 else re.escape(p) for i, p in enumerate(parts))


@every("log")
def test_log(snippet: Snippet) -> None:
    patterns = log_patterns()
    for line in snippet.text.splitlines():
        assert any(re.fullmatch(pattern, line) for pattern in patterns), line


def test_every_log_line_is_on_a_page() -> None:
    shown = [line for s in SNIPPETS if s.language == "log" for line in s.text.splitlines()]
    missing = [
        pattern
        for pattern in log_patterns()
        if not any(re.fullmatch(pattern, line) for line in shown)
    ]
    assert missing == []


@every("output")
def test_output(
    snippet: Snippet, env: Environment, moto: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/dead-letters.md show this, but for ages, times and ids of SQS."""
    env(DISPATCH_SQS_ENDPOINT_URL=moto, DISPATCH_SQS_KEY="key", DISPATCH_SQS_SECRET="secret",
        DISPATCH_SQS_REGION="eu-central-1", DISPATCH_QUEUES="mail=shop-mail",
        DISPATCH_CREATE_QUEUES=True, DISPATCH_LEASE_CACHE="default")  # fmt: skip
    add_documented_workers()
    letters = open_beside(open_queue("mail"), "shop-mail-dead-letter")
    for letter in documented_letters():
        letters.send(letter, {})
    first = snippet.text.split(maxsplit=1)[0]
    call_command(*{
        "QUEUE": ["beanstalk_queues"],
        "MACHINE": ["beanstalk_queues", "--running"],
        "shop-mail-dead-letter:": ["beanstalk_dead_letters", "list"],
        "id": ["beanstalk_dead_letters", "show", "card-1"],
    }[first])  # fmt: skip
    for queue in (open_queue("mail"), letters):
        queue.client.delete_queue(QueueUrl=queue.url)
    caches["default"].clear()
    assert without_times(capsys.readouterr().out) == without_times(snippet.text)


def add_documented_workers() -> None:
    caches["default"].clear()
    tasks: dict[str, Any] = {"queue": "shop-mail", "receive_count": 1}
    add_entry(
        "ip-10-0-1", process_id=4211, consumer="endpoint", queues=[], threads=15, count=1,
        running=[tasks | {"id": "report-1", "function": "build_report", "attempt": 1,
                          "seconds": 3}],
    )  # fmt: skip
    add_entry(
        "ip-10-0-2", ago=90, process_id=980, queues=["mail"], threads=8, count=1,
        running=[tasks | {"id": "card-1", "function": "charge_card", "attempt": 2, "seconds": 11}],
        next_runs=[["clean_up", time.time() + 11_100]],
    )  # fmt: skip


def documented_letters() -> Iterator[str]:
    card, limit = "ValueError: the card was declined", "TaskTimeout: its limit of 2m has passed"
    for function, arguments, task_id, minutes, exception in [
        ("charge_card", [42], "card-1", 1, card),
        ("charge_card", [43], "card-2", 2, card),
        ("build_report", [], "report-1", 3, limit),
    ]:
        body = Message(function=function, args=arguments, id=task_id).encode(queue="shop-mail")
        reason = {
            "outcome": "failed", "exception": exception, "attempts": 3, "receive_count": 1,
            "traceback": f"Traceback (most recent call last):\n{exception}", "id": task_id,
            "function": function, "queue": "shop-mail", "at": time.time() - 60 * minutes,
        }  # fmt: skip
        yield wrap(body, reason, queue="shop-mail")
    yield Message(function="send_welcome", id="welcome-1").encode(queue="shop-mail")


def without_times(text: str) -> str:
    """The text with one space between words, and words for ages, times and ids of SQS."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)  # may contain 123d
    text = re.sub(r"\b\d+[smhd]( \d+[smhd])?\b", "AGE", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "TIME", text)
    return re.sub(r" +", " ", text)


def test_the_options_of_the_dead_letter_commands_are_documented() -> None:
    rows = table_rows(ROOT / "docs" / "dead-letters.md", "Command")
    documented = {row[1].strip("`") for row in rows if row[1].startswith("`--")}
    found = {"--watch", "--interval", "--json", "--pause", "--resume", "--running"}
    parser = load_command_class("beanstalk_dispatch", "beanstalk_dead_letters").create_parser(
        "manage.py", "beanstalk_dead_letters"
    )
    (actions,) = [each.choices for each in parser._actions if isinstance(each.choices, dict)]
    for action in actions.values():
        found |= {name for each in action._actions for name in each.option_strings}
    assert documented == found - {"-h", "--help"}


# --- Python ----------------------------------------------------------------------------------


def documented_properties(environment: str) -> dict[str, str]:
    """What the ``eb setenv`` for the tutorial's project sets in an environment."""
    return {
        name: value
        for snippet in snippets_of(ARCHITECTURE)
        if snippet.language == "sh"
        for words in commands(snippet.text)
        if words[:4] == ["eb", "setenv", "-e", environment]
        for name, value in assignments(words).items()
        if name not in OWN_PROPERTIES
    }


def properties_with_both_tasks() -> dict[str, str]:
    """Those of the tutorial's worker once it has the class of tasks.md, too."""
    table = "send_welcome=shop.tasks.send_welcome build_report=shop.tasks.BuildReport"
    return documented_properties("shop-worker") | {"BEANSTALK_DISPATCH_TABLE": table}


def documented(variable: str) -> dict[str, Any]:
    """All pairs that the documentation gives a variable, in any shell or ini snippet."""
    pairs: dict[str, Any] = {}
    for snippet in SNIPPETS:
        if snippet.language in {"sh", "ini"}:
            values = re.findall(rf"\b{variable}='?([^\"'\n]+)", snippet.text)
            pairs |= {k: v for text in values for k, v in VARIABLES[variable].cast(text).items()}
    return pairs


def documented_queues() -> dict[str, QueueAddress]:
    return dict(casts.queues(documented_properties("shop-worker")["BEANSTALK_DISPATCH_QUEUES"]))


@pytest.fixture
def shop(env: Environment, monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> ModuleType:
    """The module that a document's Python runs in, with the documentation's own variables set."""
    module = ModuleType(TASKS)
    monkeypatch.setenv("DJANGO_SECRET_KEY", "for-the-tutorials-settings")
    monkeypatch.setitem(sys.modules, TASKS, module)
    queues = documented_properties("shop-worker")["BEANSTALK_DISPATCH_QUEUES"]
    env(
        DISPATCH_TABLE=json.dumps(documented("BEANSTALK_DISPATCH_TABLE")),
        DISPATCH_QUEUES=queues,
    )
    return module


def python_of(document: Path) -> list[Snippet]:
    return [each for each in snippets_of(document) if each.language == "python"]


def run(snippet: Snippet, module: ModuleType) -> None:
    """Run a document's Python in a module that has run what is above it."""
    code = compile(
        "\n" * (snippet.line - 1) + snippet.text,
        str(snippet.document),
        "exec",
        flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    result = eval(code, vars(module))
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.fixture(autouse=True)
def _is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ``asgi.py`` would set up logging again, with a stream that pytest closes."""
    monkeypatch.setattr("django.setup", dict)  # which takes its arguments, and does nothing


def assert_no_errors(caplog: pytest.LogCaptureFixture) -> None:
    assert [r.getMessage() for r in caplog.records if r.levelname in {"ERROR", "CRITICAL"}] == []


def every_page(language: str) -> pytest.MarkDecorator:
    """Run a test with each document that has snippets of ``language``; it executes them all."""
    _executed.add(language)
    found = {each.document: None for each in SNIPPETS if each.language == language}
    return pytest.mark.parametrize("page", found, ids=lambda page: str(page.relative_to(ROOT)))


@every_page("python")
def test_python_at_once(
    page: Path,
    shop: ModuleType,
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True, DISPATCH_LEASE_CACHE="default", **DJANGO_TASKS)
    for snippet in python_of(page):
        run(snippet, shop)
        assert_no_errors(caplog)
        shown = re.findall(r"print\(error\)  # (.+)", snippet.text)
        assert set(shown) <= set(capsys.readouterr().out.splitlines())


@every_page("python")
def test_python_through_sqs(
    page: Path, shop: ModuleType, env: Environment, moto: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is scheduled is received and run."""
    for address in documented_queues().values():
        create_queue(address.name)
    env(DISPATCH_SQS_ENDPOINT_URL=moto, DISPATCH_SQS_KEY="key", DISPATCH_SQS_SECRET="secret")
    env(DISPATCH_LEASE_CACHE="default", **DJANGO_TASKS)
    for snippet in python_of(page):
        run(snippet, shop)
        run_what_is_scheduled()
        assert_no_errors(caplog)


def run_what_is_scheduled() -> None:
    for alias in documented_queues():
        queue = open_queue(alias)
        while received := queue.receive(count=10, wait=0, visibility=60):
            for each in received:
                assert deliver(each.body, Delivery(queue=queue.name)).is_acknowledged
            assert queue.delete_batch(received) == []


# --- the tutorial's other ways ---------------------------------------------------------------


@pytest.fixture
def tutorials_plan(shop: ModuleType, env: Environment) -> Plan:
    vars(shop)["send_welcome"] = print
    properties = documented_properties("shop-worker")
    env(**{name: long_enough(value) for name, value in properties.items()})
    env(DISPATCH_TABLE="send_welcome=shop.tasks.send_welcome")
    return make_plan(get_config(), name="shop", application=SHOP)


def test_the_terraform_file_fits_the_plan(tutorials_plan: Plan) -> None:
    """It reads files that beanstalk_eb writes, and its queues are those of the printed commands."""
    text = deployment_file("elastic_beanstalk.tf")
    assert text.count("{") == text.count("}")
    for file in re.findall(r'file\("([^"]+)"\)', text):
        for tier in ("web", "worker"):
            assert file.replace("${each.key}", tier) in bundle_files(tutorials_plan)
    figures = dict(re.findall(r"(\w+) += (\d+)$", text, re.MULTILINE))
    assert figures == {
        "message_retention_seconds": "1209600",
        "max_message_size": str(MAX_MESSAGE_BYTES),
        "visibility_timeout_seconds": f"{tutorials_plan.ladder.visibility:.0f}",
        "maxReceiveCount": str(MAX_RECEIVES),
    }
    printed = "\n".join(eb_commands(tutorials_plan, get_config(), key=None))
    assert all(each in printed for each in figures.values())
    queue = tutorials_plan.read_queue
    for name in (queue.name, queue.dead_letters.name, tutorials_plan.web, tutorials_plan.worker):
        assert f'"{name}"' in text


def test_the_consoles_fields_are_the_daemons_options(tutorials_plan: Plan) -> None:
    options = dict(daemon_options(tutorials_plan))
    assert options.pop("WorkerQueueURL") == tutorials_plan.read_queue.url
    rows = dict(table_rows(ELASTIC_BEANSTALK, "Field"))
    assert rows.pop("Worker queue") == f"the queue `{tutorials_plan.read_queue.name}`"
    found = {name.replace(" ", "").lower(): value.strip("`") for name, value in rows.items()}
    assert found == {name.lower(): str(value) for name, value in options.items()}


@every("console")
def test_console(
    snippet: Snippet, shop: ModuleType, env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line below a command is one that the command writes with the tutorial's properties."""
    for each in snippets_of(ROOT / "docs" / "tasks.md"):
        if each.file == "shop/tasks.py":
            exec(each.text, vars(shop))
    properties = properties_with_both_tasks()
    env(**{name: long_enough(value) for name, value in properties.items()})
    first, *lines = snippet.text.splitlines()
    prompt, python_name, manage_py, *arguments = shlex.split(first)
    assert (prompt, python_name, manage_py) == ("$", "python", "manage.py")
    # The doctor has found something, and exits.
    with suppress(SystemExit), override_settings(SETTINGS_MODULE="shop.settings"):
        call_command(*arguments)
    written = capsys.readouterr().out
    missing = [line for line in lines if line not in written.splitlines()]
    assert missing == [], written


def test_the_observers_of_their_page_watch_a_task(
    shop: ModuleType, env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    env(DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    for snippet in python_of(ROOT / "docs" / "tasks.md"):
        run(snippet, shop)
    vars(shop)["send_welcome"] = print
    capsys.readouterr()
    env(DISPATCH_OBSERVERS=f"{TASKS}.Stopwatch {TASKS}.TenantHeader")
    schedule_function("mail", "send_welcome", 7)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"tenant customer-12\n7\nsend_welcome done 0\.\d{3} s\n", printed)


def check_tutorials_project(tmp_path: Path, more_settings: str = "") -> str:
    """Write its files and run ``check`` with its properties; what is in the log."""
    files: dict[str, str] = {"shop/settings.py": "SECRET_KEY = 'x'\nROOT_URLCONF = 'urls'\n"}
    for snippet in [*snippets_of(TUTORIAL), *snippets_of(ROOT / "docs" / "tasks.md")]:
        if snippet.language == "python" and snippet.file:
            name = snippet.file.replace("settings.py", "shop/settings.py")
            files[name] = files.get(name, "") + snippet.text
    files["shop/settings.py"] += more_settings
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    variables = documented_properties("shop-worker")
    assert variables["BEANSTALK_DISPATCH_SIGNING_KEYS"] == "THE-KEY"
    variables["BEANSTALK_DISPATCH_SIGNING_KEYS"] = secrets.token_urlsafe(32)  # as it says
    variables["DJANGO_SECRET_KEY"] = secrets.token_urlsafe(50)
    checked = manage(tmp_path, "shop.settings", variables, "check", "--fail-level", "WARNING")
    assert checked.returncode == 0, checked.stderr
    return checked.stderr


@pytest.mark.slow
def test_the_tutorials_project_starts_as_the_tutorial_says(tmp_path: Path) -> None:
    """Its files and its properties make a worker that no check has anything to say about."""
    (start,) = [s.text for s in snippets_of(TUTORIAL) if " start worker=" in s.text]
    assert re.fullmatch(rf"[\d-]+ [\d:,]+ {re.escape(start)}", check_tutorials_project(tmp_path))


@pytest.mark.slow
def test_with_djangos_own_logging_there_is_no_line_at_all(tmp_path: Path) -> None:
    assert check_tutorials_project(tmp_path, "LOGGING = {}\n") == ""


# --- what a supervisor reads -----------------------------------------------------------------


def worker_limits(words: list[str]) -> tuple[float, float]:
    """Parse a worker's command line; its grace and wait."""
    assert words[:2] == ["manage.py", "beanstalk_worker"]
    parser = load_command_class("beanstalk_dispatch", words[1]).create_parser(*words[:2])
    options = parser.parse_args(words[2:])
    assert options.queues == ["mail", "work"]
    return options.grace, options.wait


def test_the_systemd_unit() -> None:
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(deployment_file("shop-worker.service"))
    service = unit["Service"]
    limits = worker_limits(shlex.split(service["ExecStart"])[1:])
    assert float(service["TimeoutStopSec"]) > max(limits)


@every("procfile")
def test_procfile(snippet: Snippet) -> None:
    kind, _, command = snippet.text.partition(": ")
    if kind == "web":
        check_gunicorn(command)
    else:
        assert kind == "worker"
        worker_limits(shlex.split(command)[1:])


def check_gunicorn(command: str) -> None:
    """The example's command, which waits longer for tasks than a task may take."""
    example = (EXAMPLE / "Procfile").read_text().partition(": ")[2]
    assert command.replace("shop.wsgi", "example_settings.wsgi") == example
    options = gunicorn.config.Config().parser().parse_args(shlex.split(command)[1:])
    limit = documented_properties("shop-worker")["BEANSTALK_DISPATCH_TASK_TIMEOUT"]
    inactivity_timeout = documented_daemon_options()["InactivityTimeout"]
    assert casts.duration(limit).total_seconds() < options.graceful_timeout < inactivity_timeout


def test_the_kubernetes_deployment() -> None:
    pod = yaml.safe_load(deployment_file("kubernetes.yaml"))["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    limits = worker_limits(container["command"][1:])
    assert pod["terminationGracePeriodSeconds"] > max(limits)
    (port,) = container["ports"]
    assert f"--health-port=[::]:{port['containerPort']}" in container["command"]
    assert container["livenessProbe"]["httpGet"]["port"] == port["name"]


def test_the_container_of_ecs(tmp_path: Path) -> None:
    container = json.loads(deployment_file("ecs.json"))
    limits = worker_limits(container["command"][1:])
    assert 120 >= container["stopTimeout"] > max(limits)
    check = container["healthCheck"]["command"][1].replace("/tmp/health", str(tmp_path / "health"))
    (tmp_path / "health").touch()
    assert subprocess.run(["sh", "-c", check], check=False).returncode == 0
    os.utime(tmp_path / "health", (0, 0))
    assert subprocess.run(["sh", "-c", check], check=False).returncode == 1
