from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings

from beanstalk_dispatch.deploying.eb_files import HOOKS
from beanstalk_dispatch.deploying.procfile import PROCFILE
from beanstalk_dispatch.deploying.sqsd_options import options_file, policy_file
from beanstalk_dispatch.problems import web_boot
from tests.conftest import TABLE, Environment
from tests.services import ROOT

WHERE = ("--region", "eu-west-1", "--account", "123456789012")
FINE = "ok            files: the files do what is needed\n"
KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: Environment) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(web_boot, "boot", lambda plan, root: [])  # test_web_boot.py starts servers
    env(DISPATCH_TABLE=TABLE)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, **options: Any) -> str:
    call_command("beanstalk_eb", *WHERE, *arguments, **options)
    return capsys.readouterr().out


def test_the_files_are_written_and_pass_the_check(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    output = run(capsys)
    assert output.startswith(f"written: {PROCFILE}\n")
    assert "eb create tests-web --instance_profile tests-web" in output
    assert os.access(folder / HOOKS[0], os.X_OK)
    assert (folder / PROCFILE).read_text().endswith(" tests.wsgi\n")
    assert run(capsys, "--check") == FINE
    assert run(capsys).startswith(f"unchanged: {PROCFILE}\n")


def test_the_worker_environment_scales_by_its_queue_if_asked_to(
    capsys: pytest.CaptureFixture[str], env: Environment
) -> None:
    env(DISPATCH_BACKLOG_TOKEN=f"token-{KEY}")
    call_command("beanstalk_eb", *WHERE, "--max-instances=4")
    output = capsys.readouterr()
    assert "put-scaling-policy" in output.out
    assert "BEANSTALK_DISPATCH_BACKLOG_TOKEN is set here and not shown" in output.err
    assert f"token-{KEY}" not in output.out + output.err
    assert run(capsys, "--check", "--max-instances=4") == FINE
    with pytest.raises(SystemExit, match="1"):
        run(capsys, "--check", "--max-instances=5")


def test_what_is_no_topic_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="--alarm-topic: expected an e-mail address, or arn:"):
        run(capsys, "--alarm-topic", "on-call")
    call_command("beanstalk_eb", *WHERE, "--alarm-topic", "ops@example.com")
    assert "tell nobody" not in capsys.readouterr().err


def test_the_admins_pages_of_dead_letters_get_their_permissions(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    run(capsys)
    policy = folder / policy_file("tests-web")
    assert "ReceiveMessage" not in policy.read_text()
    apps = [*settings.INSTALLED_APPS, "beanstalk_dispatch.contrib.workbench"]
    with override_settings(INSTALLED_APPS=apps):
        with pytest.raises(SystemExit):
            run(capsys, "--check")
        assert "does not allow sqs:ReceiveMessage on arn:aws:sqs" in capsys.readouterr().out
        run(capsys, "--overwrite")
        assert run(capsys, "--check") == FINE
    statement = json.loads(policy.read_text())["Statement"][-1]
    assert statement["Resource"] == ["arn:aws:sqs:eu-west-1:123456789012:tests-work-dead-letter"]


@pytest.mark.parametrize("option", ["--processes", "--threads", "--max-instances"])
def test_a_count_is_at_least_one(option: str) -> None:
    with pytest.raises(CommandError, match=f"{option}: expected an integer from 1 to .*, not '0'"):
        call_command("beanstalk_eb", *WHERE, option, "0")


def test_a_hook_becomes_executable_again(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    run(capsys)
    (folder / HOOKS[0]).chmod(0o644)
    assert f"unchanged: {HOOKS[0]}" in run(capsys)
    assert run(capsys, "--check") == FINE


def test_the_check_writes_nothing_and_fails(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    with pytest.raises(SystemExit, match="1"):
        run(capsys, "--check")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"error    E401 {PROCFILE}: is missing"
    assert lines[1].split("→ ")[1] == "python manage.py beanstalk_eb --overwrite"
    assert len(lines) == 2 * 7
    assert list(folder.iterdir()) == []


def test_a_difference_that_is_silenced_is_none(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    run(capsys)
    (folder / HOOKS[0]).chmod(0o644)
    with pytest.raises(SystemExit):
        run(capsys, "--check")
    with override_settings(SILENCED_SYSTEM_CHECKS=["beanstalk_dispatch.E402"]):
        capsys.readouterr()
        assert run(capsys, "--check") == ""


def test_programs_get_the_differences_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "--check", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["error"], found["findings"][0]["object"]) == (7, PROCFILE)


def test_programs_get_the_files_and_the_commands_as_json(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / PROCFILE).write_text("web: gunicorn --threads=4 shop.wsgi\n")
    found = json.loads(run(capsys, "--json", "--overwrite"))
    states = {each["path"]: each["state"] for each in found["files"]}
    assert (states[PROCFILE], states[HOOKS[0]]) == ("replaced", "written")
    assert "+web: gunicorn --bind" in found["files"][0]["difference"]
    assert any(each.startswith("eb create tests-web") for each in found["commands"])


def test_nothing_is_overwritten_without_being_asked_for(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    worker = "worker: python manage.py beanstalk_worker mail\n"
    own = f"web: gunicorn --threads=4 shop.wsgi\n{worker}"
    (folder / PROCFILE).write_text(own)
    with pytest.raises(CommandError, match=f"not as needed: {PROCFILE}; .* --overwrite"):
        run(capsys)
    output = capsys.readouterr().out
    assert "  -web: gunicorn --threads=4 shop.wsgi" in output
    assert "written: beanstalk/tests-worker-options.json" in output
    assert (folder / PROCFILE).read_text() == own
    output = run(capsys, "--overwrite")
    assert f"replaced: {PROCFILE}" in output
    assert "  +web: gunicorn --bind" in output
    assert (folder / PROCFILE).read_text().endswith(worker)
    assert run(capsys, "--check") == FINE


def test_a_file_that_does_what_is_needed_stays(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    run(capsys)
    content = (folder / PROCFILE).read_text().replace("160", "400")
    for path in (*HOOKS, options_file("tests-worker")):
        text = (folder / path).read_text()
        for old in ("170", "180", "190"):
            text = text.replace(old, f"9{old[1:]}")
        (folder / path).write_text(text)
    (folder / PROCFILE).write_text(content)
    assert f"unchanged: {PROCFILE}" in run(capsys)
    assert (folder / PROCFILE).read_text() == content


def test_a_key_that_exists_is_not_shown_and_another_is_not_made(
    capsys: pytest.CaptureFixture[str], env: Environment
) -> None:
    assert "BEANSTALK_DISPATCH_SIGNING_KEYS=" in run(capsys)
    env(DISPATCH_SIGNING_KEYS=KEY)
    call_command("beanstalk_eb", *WHERE)
    output = capsys.readouterr()
    assert "BEANSTALK_DISPATCH_SIGNING_KEYS=" not in output.out
    assert "BEANSTALK_DISPATCH_SIGNING_KEYS is set here and not shown" in output.err
    assert KEY not in output.out + output.err


def test_what_the_plan_leaves_undone_is_a_warning(
    capsys: pytest.CaptureFixture[str], env: Environment
) -> None:
    env(DISPATCH_QUEUES="mail=shop-mail work=shop-work")
    call_command("beanstalk_eb", *WHERE)
    assert "warning: the worker environment does not read 'work'" in capsys.readouterr().err


def test_what_is_meant_for_a_laptop_is_a_warning(
    capsys: pytest.CaptureFixture[str], env: Environment
) -> None:
    env(DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:5000", DISPATCH_CREATE_QUEUES=True)
    call_command("beanstalk_eb", *WHERE)
    error = capsys.readouterr().err
    assert "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL is an address of this machine" in error
    assert "BEANSTALK_DISPATCH_CREATE_QUEUES is for local use" in error


def test_a_directory_that_is_a_file_is_a_command_error(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(CommandError, match="--directory: .*Not a directory"):
        call_command("beanstalk_eb", *WHERE, "--directory", str(folder / "file"))


def test_what_the_files_are_made_without_is_a_warning(
    capsys: pytest.CaptureFixture[str], env: Environment, folder: Path
) -> None:
    env(DISPATCH_TABLE=None, DISPATCH_QUEUES=None)
    for mode in ((), ("--check",)):
        call_command("beanstalk_eb", *WHERE, *mode, "--alarm-topic=ops@example.com")
        queues, table, requirements = capsys.readouterr().err.splitlines()
        assert queues == (
            "warning: BEANSTALK_DISPATCH_QUEUES is not set here, so there is one queue, "
            "'tests-work' with the alias 'work'"
        )
        assert "BEANSTALK_DISPATCH_TASKS is not set here" in table
        assert "there is no requirements.txt" in requirements
        assert "'uv export --no-hashes --no-emit-project -o requirements.txt'" in requirements
    env(DISPATCH_TABLE=TABLE, DISPATCH_QUEUES="mail=tests-work")
    (folder / "requirements.txt").write_text("django-beanstalk-dispatch\n")
    call_command("beanstalk_eb", *WHERE, "--check")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flag", ["yes", "Ture"])
def test_what_is_wrong_or_missing_is_a_command_error(env: Environment, flag: str) -> None:
    env(WORKER=flag)
    with pytest.raises(CommandError, match="add --region|'Ture' is not a boolean"):
        call_command("beanstalk_eb")


def test_on_a_terminal_the_command_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["the-web", "", " us-east-1 ", "123456789012"])
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    call_command("beanstalk_eb")
    output = capsys.readouterr().out
    assert "eb create the-web" in output
    assert "eb create tests-worker" in output
    assert "sqs.us-east-1.amazonaws.com/123456789012/tests-work" in output
    questions = [
        "Name of the web environment [tests-web]: ",
        "Name of the worker environment [tests-worker]: ",
        "AWS region of the queues: ",
        "AWS account number, which 'aws sts get-caller-identity' shows: ",
    ]
    assert asked == questions
    call_command("beanstalk_eb", *WHERE, "--no-input", "--overwrite")
    assert asked == questions


def test_what_the_queues_say_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, env: Environment
) -> None:
    env(DISPATCH_QUEUES="mail=https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail")
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return ""

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ask)
    call_command("beanstalk_eb")
    assert [each.partition(" [")[0] for each in asked] == [
        "Name of the web environment", "Name of the worker environment",
    ]  # fmt: skip
    asked.clear()
    env(DISPATCH_QUEUES="mail=shop-mail", DISPATCH_SQS_REGION="eu-west-1")
    call_command("beanstalk_eb", "--account=123456789012", "--web=shop")
    assert asked[1:] == ["AWS region of the queues [eu-west-1]: "]


def test_gunicorn_loads_the_projects_own_application(capsys: pytest.CaptureFixture[str]) -> None:
    with override_settings(WSGI_APPLICATION="shop.web.wsgi.application", ROOT_URLCONF=None):
        output = run(capsys, "--overwrite", "--name=the-shop")
    assert "eb create the-shop-web" in output
    assert Path(PROCFILE).read_text().endswith(" shop.web.wsgi\n")


def test_the_settings_module_of_the_servers_is_one_of_the_properties(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manage = str(ROOT / "manage.py")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", manage, raising=False)
    with override_settings(
        SETTINGS_MODULE="example_settings.settings", WSGI_APPLICATION="tests.wsgi.application"
    ):
        call_command("beanstalk_eb", *WHERE)
    output = capsys.readouterr()
    assert output.out.count("  DJANGO_SETTINGS_MODULE=tests.settings ") == 2
    assert (
        "will use tests.settings: run it with DJANGO_SETTINGS_MODULE=tests.settings" in output.err
    )


def test_the_properties_that_the_settings_read_are_named(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = 'a = env("DJANGO_SECRET_KEY")\nb = env.bool("SHOP_DEBUG", default=False)\n'
    (folder / "shop_settings.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    with override_settings(SETTINGS_MODULE="shop_settings"):
        lines = run(capsys).splitlines()
    required = lines.index(
        "#    Properties that shop_settings reads, and that both environments need before the "
        "deployment:"
    )
    assert lines[required + 1].split() == ["#", "DJANGO_SECRET_KEY"]
    assert lines[required + 3].split() == ["#", "SHOP_DEBUG"]


def test_the_commands_are_printed_though_a_file_stays_as_it_is(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / PROCFILE).write_text("web: gunicorn shop.wsgi\n")
    with pytest.raises(CommandError, match="not as needed: Procfile; read the differences"):
        run(capsys)
    output = capsys.readouterr()
    assert "eb create tests-web" in output.out
    assert "error    E407 Procfile: gunicorn's --timeout, 30 s, is not longer" in output.err


@pytest.mark.parametrize(
    ("line", "error", "told"),
    [
        ("web: uvicorn shop.asgi:application --port 8000\n", "", ""),
        ("web: sh serve.sh\n", "", "warning  W421 Procfile: the options of 'sh' are not known"),
        (
            "web: uvicorn --timeout-graceful-shutdown 3 shop.asgi\n",
            "not as needed: timeouts; the lines above say why",
            "error    E303 timeouts: the server's graceful timeout, 3 s, is not longer than",
        ),
    ],
)
def test_another_web_server_is_left_alone(
    capsys: pytest.CaptureFixture[str], folder: Path, line: str, error: str, told: str
) -> None:
    (folder / PROCFILE).write_text(line)
    with pytest.raises(CommandError, match=error) if error else nullcontext():
        call_command("beanstalk_eb", *WHERE, "--overwrite")
    assert (folder / PROCFILE).read_text() == line
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("option", "name"), [("--web", "a"), ("--worker", "shop_worker")])
def test_a_name_that_elastic_beanstalk_refuses_is_a_command_error(option: str, name: str) -> None:
    with pytest.raises(CommandError, match=f"'{name}' is not the name .* 40 .*; add {option} NAME"):
        call_command("beanstalk_eb", *WHERE, option, name)


def test_a_second_worker_environment_gets_its_own_files_and_no_new_key(
    capsys: pytest.CaptureFixture[str], env: Environment, folder: Path
) -> None:
    env(DISPATCH_QUEUES="mail=shop-mail work=shop-work")
    run(capsys)
    second = ("--queue=work", "--worker=tests-work")
    output = run(capsys, *second)
    assert "written: beanstalk/tests-work-options.json\n" in output
    assert "different:" not in output
    assert "replaced:" not in output
    assert "BEANSTALK_DISPATCH_SIGNING_KEYS=" not in output
    assert run(capsys, "--check") == run(capsys, "--check", *second) == FINE


def test_debug_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    with override_settings(DEBUG=True, SETTINGS_MODULE="shop.settings.dev"):
        call_command("beanstalk_eb", *WHERE)
    assert "warning: DEBUG is on in shop.settings.dev: on the servers" in capsys.readouterr().err


def test_a_folder_below_the_root_of_the_bundle_is_a_warning(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "requirements.txt").touch()
    (folder / "src").mkdir()
    call_command("beanstalk_eb", *WHERE, "--directory=src")
    error = capsys.readouterr().err
    assert f"requirements.txt is in {folder}, so this is not the root of the bundle" in error
    assert "run the command there: python src/manage.py beanstalk_eb" in error
