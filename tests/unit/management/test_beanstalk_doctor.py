from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import override_settings

from beanstalk_dispatch.problems.findings import ok, problem
from tests.conftest import TABLE, Environment

# A request may use connections that an earlier test has opened.
pytestmark = pytest.mark.django_db(databases="__all__")

KEY = "0123456789abcdef"
PATH = "/beanstalk_dispatch/dispatcher"


@pytest.fixture(autouse=True)
def worker(env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env(WORKER=True, DISPATCH_TABLE=TABLE, DISPATCH_SIGNING_KEYS=KEY)


def run(*arguments: str) -> int:
    """The exit code."""
    try:
        call_command("beanstalk_doctor", *arguments)
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


def test_a_project_that_is_set_up_well_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--http-path", PATH) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[-1] == f"ok            daemon's POST: POST {PATH} reaches the dispatcher"
    assert KEY not in "".join(output)


def test_an_error_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--http-path", "/") == 1
    assert "error    E120 daemon's POST: HttpPath is '/'" in capsys.readouterr().out


def test_a_warning_exits_with_1_if_it_is_asked_for() -> None:
    assert run() == 0  # nothing sets HttpPath
    assert run("--fail-level", "warning") == 1


@override_settings(SILENCED_SYSTEM_CHECKS=["beanstalk_dispatch.E120"])
def test_what_is_silenced_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--http-path", "/") == 0
    assert "HttpPath" not in capsys.readouterr().out


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "--http-path", "/") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["error"] == 1
    assert found["findings"][-1]["object"] == "daemon's POST"


def test_aws_and_the_machine_are_examined_if_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = "beanstalk_dispatch.problems"
    monkeypatch.setattr(
        f"{package}.aws_doctor.examine", lambda: iter([problem("W217", "aws", key="k")])
    )
    found = [ok("machine", "looked at"), problem("E402", "machine", path="x")]
    monkeypatch.setattr(f"{package}.machine_doctor.examine", lambda: iter(found))
    assert run("--http-path", PATH) == 0
    assert "aws" not in capsys.readouterr().out
    assert run("--http-path", PATH, "--aws", "--machine") == 1
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "warning  W217 aws: it is encrypted with the KMS key k",
        "              → allow kms:GenerateDataKey and kms:Decrypt on that key to both roles",
        "ok            machine: looked at",
        "error    E402 machine: is not executable",
        "              → chmod +x x",
    ]
