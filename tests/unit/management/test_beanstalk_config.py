from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from beanstalk_dispatch.deploying.property_formats import PROPERTIES, SECRETS
from tests.conftest import Environment
from tests.unit.deploying.test_properties import large

KEY = "0123456789abcdef"
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:keys-AbCdEf"
VARIABLE = "BEANSTALK_DISPATCH_SIGNING_KEYS"


@pytest.fixture(autouse=True)
def properties(env: Environment) -> None:
    env(DISPATCH_TABLE="a=tests.jobs.record", DISPATCH_SIGNING_KEYS=KEY, DISPATCH_CRASH_LEDGER=None)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, **options: Any) -> tuple[str, str]:
    call_command("beanstalk_config", *arguments, **options)
    output = capsys.readouterr()
    return output.out, output.err


def test_the_table_and_json_show_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    output, _ = run(capsys)
    assert output.startswith("VARIABLE ")
    output, _ = run(capsys, "--format", "json", "--tier", "worker")
    assert json.loads(output)["tasks"][0]["name"] == "a"
    assert KEY not in output


def test_a_wrong_configuration_is_shown_and_fails(
    env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    env(WORKER="Ture")
    with pytest.raises(CommandError, match="'Ture' is not a boolean"):
        run(capsys)
    assert "problem: BEANSTALK_WORKER: 'Ture'" in capsys.readouterr().out
    with pytest.raises(CommandError, match="'Ture' is not a boolean"):
        run(capsys, "--format", "eb")
    assert capsys.readouterr().out == ""


def test_the_properties_of_each_tier(env: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    worker = "BEANSTALK_WORKER=True\n"
    env(WORKER=True)
    assert worker in run(capsys, "--format", "dotenv")[0]
    assert worker not in run(capsys, "--format", "dotenv", "--tier", "web")[0]
    env(WORKER=None)
    assert worker not in run(capsys, "--format", "dotenv")[0]
    assert worker in run(capsys, "--format", "dotenv", "--tier", "worker")[0]


def test_secrets_are_left_out_unless_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    output, errors = run(capsys, "--format", "eb", "--environment", "shop-web")
    assert output.splitlines() == [
        f"# {VARIABLE} is a secret and left out",
        "eb setenv -e shop-web \\",
        "  BEANSTALK_DISPATCH_TABLE=a=tests.jobs.record",
    ]
    assert f"warning: {VARIABLE} is a secret and left out" in errors
    output, errors = run(capsys, "--format", "eb", "--show-secrets")
    assert f"{VARIABLE}={KEY}" in output
    assert errors == ""


def test_a_secret_can_be_delivered_by_its_arn(capsys: pytest.CaptureFixture[str]) -> None:
    output, errors = run(
        capsys, "--format", "ebextensions", "--secret", f"{VARIABLE}={ARN}", "--show-secrets"
    )
    assert yaml.safe_load(output)["option_settings"] == {
        PROPERTIES: {"BEANSTALK_DISPATCH_TABLE": "a=tests.jobs.record"},
        SECRETS: {VARIABLE: ARN},
    }
    assert errors == ""


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("BEANSTALK_DISPATCH_TABLE=arn:aws:x", "BEANSTALK_DISPATCH_TABLE is not a secret"),
        (f"{VARIABLE}={KEY}", "expected VARIABLE=ARN"),
    ],
)
def test_a_wrong_secret_is_refused(
    capsys: pytest.CaptureFixture[str], argument: str, error: str
) -> None:
    with pytest.raises(CommandError, match=error):
        run(capsys, "--format", "eb", "--secret", argument)


def test_forty_tasks_and_five_queues_fit(
    env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    env(**large(40, 5))
    output, _ = run(capsys, "--format", "eb", "--tier", "worker", "--show-secrets")
    assert output.count("send_notification_") == 80


def test_what_does_not_fit_needs_files(
    env: Environment,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env(**large(80, 5))
    with pytest.raises(CommandError, match=r"have \d,\d{3} bytes, but 4,096 are left .* --files"):
        run(capsys, "--format", "dotenv")
    monkeypatch.chdir(tmp_path)
    output, errors = run(capsys, "--format", "dotenv", "--files", "config")
    path = "config/BEANSTALK_DISPATCH_TABLE"
    assert f"BEANSTALK_DISPATCH_TABLE_FILE={path}" in output.splitlines()
    assert f"written: {path}" in errors
    assert (tmp_path / path).read_text().startswith("send_notification_0=")


def test_a_directory_of_files_that_is_a_file_is_an_error(
    env: Environment, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    env(**large(80, 5))
    file = tmp_path / "config"
    file.touch()
    with pytest.raises(CommandError, match=r"--files: .* File exists: .*; name a directory of the"):
        run(capsys, "--format", "dotenv", "--files", str(file))


def test_a_value_that_would_be_changed_is_a_warning(
    env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    env(DISPATCH_SIGNING_KEYS=f"{KEY}\\", DISPATCH_CREATE_QUEUES=True)
    _, errors = run(capsys, "--format", "eb", "--show-secrets")
    first, second = errors.splitlines()
    assert first.startswith(f"warning: {VARIABLE} contains a backslash")
    assert second.startswith("warning: BEANSTALK_DISPATCH_CREATE_QUEUES is for local use")
