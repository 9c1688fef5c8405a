from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.deploying.eb_files import (
    EBEXTENSIONS,
    HOOKS,
    bundle_files,
)
from beanstalk_dispatch.deploying.existing import CRON
from beanstalk_dispatch.deploying.plan import Plan, make_plan
from beanstalk_dispatch.deploying.procfile import PROCFILE
from tests.bundles import SHOP, WEB_POLICY, WORKER_OPTIONS, WORKER_POLICY, problems_in, write_bundle
from tests.conftest import Environment

HOOK = HOOKS[0]


def make(**given: Any) -> Plan:
    return make_plan(get_config(), name="shop", application=SHOP, region="eu-west-1",
                     account="123456789012", **given)  # fmt: skip


@pytest.fixture
def plan(env: Environment) -> Plan:
    env(DISPATCH_TABLE="night=tests.unit.deploying.test_plan.night", DISPATCH_TASK_TIMEOUT="4m")
    return make()


@pytest.fixture
def bundle(plan: Plan, tmp_path: Path) -> Path:
    return write_bundle(plan, tmp_path)


def test_the_files_that_are_written_do_what_is_needed(plan: Plan, bundle: Path) -> None:
    assert problems_in(plan, bundle) == []


def test_so_do_those_of_a_bundle_for_workers(plan: Plan, tmp_path: Path) -> None:
    own = make(is_shared=False)
    assert problems_in(own, write_bundle(own, tmp_path)) == []


def test_every_file_that_is_missing_is_said(plan: Plan, tmp_path: Path) -> None:
    assert problems_in(plan, tmp_path) == [f"{path}: is missing" for path in bundle_files(plan)]


@pytest.mark.parametrize(
    ("path", "old", "new", "problem"),
    [
        (HOOK, "280", "100", "timeouts: nginx's proxy_read_timeout, 100 s, is not longer than"),
        (HOOK, "timeout 280s", "timeout 285s", f"{HOOK}: X-Proxy-Read-Timeout and"),
        (HOOK, "location = /", "location = /x/", f"{HOOK}: is not the script that is needed"),
        (PROCFILE, "web:", "site:", f"{PROCFILE}: no line 'web:' starts a web server"),
        (PROCFILE, "--threads=15", "--threads 4", "gunicorn runs 4 requests at the same time"),
        (
            PROCFILE,
            "--threads=15",
            "",
            "gunicorn's --timeout, 30 s, is not longer than the longest",
        ),
        (PROCFILE, "--threads=15", "-k gevent", "with --worker-class gevent no time limit"),
        (
            PROCFILE,
            "--graceful-timeout 270",
            "",
            "timeouts: the server's graceful timeout, 30 s, is",
        ),
        (WORKER_OPTIONS, '"290"', '"299999"', "VisibilityTimeout, 300 s, is not longer than"),
        (WORKER_OPTIONS, "/beanstalk_dispatch/dispatcher", "/", "HttpPath is /, not /beanstalk"),
        (WORKER_OPTIONS, "shop-work", "other", "/other, not https://sqs.eu-west-1"),
        (WORKER_OPTIONS, '"60"', '"2"', "ErrorVisibilityTimeout 2 s and MaxRetries 12: a database"),
        (WEB_POLICY, "sqs:SendMessage", "sqs:*", f"{WEB_POLICY}: does not allow sqs:SendMessage"),
        (WEB_POLICY, "{", "", f"{WEB_POLICY}: does not allow sqs:SendMessage on arn"),
        (WORKER_POLICY, '"sqs:DeleteMessage",', "", "does not allow sqs:DeleteMessage on arn:aws"),
        (CRON, "night", "day", "cron.yaml: night is missing; its schedule is '0 4 * * *'"),
        (CRON, "0 4", "0 5", "night runs at '0 5 * * *' with /beanstalk_dispatch/dispatcher, not"),
        (CRON, "cron:", "cron:\n  - name: old", "cron.yaml: old has no schedule at its task"),
        (CRON, "version: 1", "name: x", ""),
        (CRON, '"0 4 * * *"', '"0 4 * * *"  # in the morning', ""),
        (CRON, '"0 4 * * *"', "'0 4 * * *' # in the morning", ""),
        (CRON, '"night"', "night # of all shops", ""),
    ],
)
def test_each_difference_is_explained(
    plan: Plan, bundle: Path, path: str, old: str, new: str, problem: str
) -> None:
    content = (bundle / path).read_text()
    assert old in content
    (bundle / path).write_text(content.replace(old, new))
    if path == HOOK:
        (bundle / HOOKS[1]).write_text((bundle / path).read_text())
    found = problems_in(plan, bundle)
    assert not problem or any(problem in text for text in found), found
    assert bool(problem) is bool(found)


def test_what_a_policy_allows_beyond_the_plan_is_said(plan: Plan, bundle: Path) -> None:
    policy = json.loads((bundle / WEB_POLICY).read_text())
    policy["Statement"].append({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    (bundle / WEB_POLICY).write_text(json.dumps(policy))
    assert problems_in(plan, bundle) == [f"{WEB_POLICY}: allows s3:* on *, which is not needed"]


def test_a_hook_that_is_not_executable_is_said(plan: Plan, bundle: Path) -> None:
    (bundle / HOOK).chmod(0o644)
    assert problems_in(plan, bundle) == [f"{HOOK}: is not executable"]


def test_a_shared_bundle_must_not_have_the_daemons_namespace(plan: Plan, bundle: Path) -> None:
    write_bundle(make(is_shared=False), bundle)
    (problem,) = problems_in(plan, bundle)
    assert problem.startswith(".ebextensions: contains aws:elasticbeanstalk:sqsd, but a deployment")


def test_a_file_of_another_name_may_have_the_options(plan: Plan, tmp_path: Path) -> None:
    own = make(is_shared=False)
    write_bundle(own, tmp_path)
    (tmp_path / EBEXTENSIONS).rename(tmp_path / ".ebextensions" / "10-worker.config")
    assert problems_in(own, tmp_path) == []


def test_a_value_that_is_not_a_number_is_the_default(plan: Plan, bundle: Path) -> None:
    content = (bundle / WORKER_OPTIONS).read_text()
    (bundle / WORKER_OPTIONS).write_text(content.replace('"15"', '"many"'))
    (problem,) = problems_in(plan, bundle)
    assert "HttpConnections is 50, but gunicorn runs 15" in problem


def test_longer_timeouts_are_accepted(plan: Plan, bundle: Path) -> None:
    longer: dict[str, Callable[[str], str]] = {
        HOOKS[0]: lambda text: text.replace("280", "900"),
        HOOKS[1]: lambda text: text.replace("280", "900"),
        WORKER_OPTIONS: lambda text: text.replace('"290"', '"910"').replace('"300"', '"1000"'),
        PROCFILE: lambda text: text.replace("270", "600") + "worker: python manage.py x\n",
    }
    for path, change in longer.items():
        (bundle / path).write_text(change((bundle / path).read_text()))
    assert problems_in(plan, bundle) == []


def test_timeouts_that_are_not_set_are_the_daemons_defaults(plan: Plan, bundle: Path) -> None:
    settings = json.loads((bundle / WORKER_OPTIONS).read_text())
    kept = [each for each in settings if each["OptionName"] == "HttpPath"]
    (bundle / WORKER_OPTIONS).write_text(json.dumps(kept))
    assert not any(
        "timeouts" in text for text in problems_in(plan, bundle)
    )  # the defaults are enough


def test_a_cron_yaml_without_schedules_at_tasks_is_the_projects_own(
    bundle: Path, env: Environment
) -> None:
    env(DISPATCH_TABLE="record=tests.jobs.record")
    assert problems_in(make(), bundle) == []
    (bundle / CRON).unlink()
    assert problems_in(make(), bundle) == []
    assert EBEXTENSIONS not in bundle_files(make())


SHORT = "{} s, is not longer than the longest time limit of a task, 240 s: a deployment kills"


@pytest.mark.parametrize(
    ("procfile", "problem"),
    [
        ("web: uvicorn shop.asgi:application --port 8000\n", ""),
        ("web: uvicorn --timeout-graceful-shutdown 30 shop.asgi\n", SHORT.format(30)),
        ("web: hypercorn shop.asgi\n", SHORT.format(3)),
        ("web: daphne -p 8000 shop.asgi:application\n", "daphne waits for no request at a stop"),
        ("web: ./serve.sh --fast\n", "the options of './serve.sh' are not known, so it was not"),
        ("worker: python manage.py x\n", "no line 'web:' starts a web server"),
        ("release: x\nweb: uvicorn shop.asgi\n", "Elastic Beanstalk starts 'release' again each"),
        ("web: gunicorn -k uvicorn_worker.UvicornWorker --graceful-timeout 270 shop.asgi\n", ""),
    ],
)
def test_a_procfile_of_its_own_is_judged_by_its_server(
    plan: Plan, bundle: Path, procfile: str, problem: str
) -> None:
    (bundle / PROCFILE).write_text(procfile)
    found = problems_in(plan, bundle)
    assert len(found) == bool(problem)
    assert problem in "".join(found)


def test_the_options_of_gunicorn_may_be_in_its_own_file(plan: Plan, bundle: Path) -> None:
    (bundle / PROCFILE).write_text("web: gunicorn shop.wsgi\n")
    assert len(problems_in(plan, bundle)) == 3
    options = "threads = 15\ngraceful_timeout = 275  # seconds\nworkers = int(1)\n"
    (bundle / "gunicorn.conf.py").write_text(options)
    assert problems_in(plan, bundle) == []
    (bundle / "gunicorn.conf.py").rename(bundle / "web.py")
    (bundle / PROCFILE).write_text("web: gunicorn -c web.py --graceful-timeout 270 shop.wsgi\n")
    assert problems_in(plan, bundle) == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("nginx.conf", "http { server { include conf.d/elasticbeanstalk/*.conf; } }", ""),
        ("nginx.conf", "http { server { listen 80; } }", "replaces the platform's configuration"),
        ("conf.d/limits.conf", "proxy_read_timeout 280s;", ""),
        (
            "conf.d/elasticbeanstalk/own.conf",
            "location = /beanstalk_dispatch/dispatcher { return 200; }",
            "has a location for /beanstalk_dispatch/dispatcher, as the hook's file",
        ),
    ],
)
def test_the_projects_own_files_of_nginx_must_leave_room_for_the_hooks(
    plan: Plan, bundle: Path, name: str, content: str, problem: str
) -> None:
    file = bundle / ".platform" / "nginx" / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    found = problems_in(plan, bundle)
    assert len(found) == bool(problem)
    assert problem in "".join(found)
