from __future__ import annotations

import http.client
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.deploying.eb_files import (
    EBEXTENSIONS,
    HOOKS,
    NGINX_STAGING,
    bundle_files,
)
from beanstalk_dispatch.deploying.existing import CRON
from beanstalk_dispatch.deploying.plan import Plan, make_plan
from beanstalk_dispatch.deploying.procfile import PROCFILE
from beanstalk_dispatch.deploying.sqsd_options import NAMESPACE
from beanstalk_dispatch.messages import cron
from tests.bundles import SHOP, WEB_POLICY, WORKER_OPTIONS, WORKER_POLICY
from tests.conftest import Environment
from tests.services import PATH, nginx

ACCOUNT = "123456789012"


@pytest.fixture
def plan(env: Environment) -> Plan:
    env(DISPATCH_TABLE="night=tests.unit.deploying.test_plan.night", DISPATCH_TASK_TIMEOUT="4m")
    return make()


def make(**given: Any) -> Plan:
    return make_plan(
        get_config(),
        name="shop",
        application=SHOP,
        region="eu-west-1",
        account=ACCOUNT,
        **given,
    )


OPTIONS = {
    "WorkerQueueURL": f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/shop-work",
    "HttpPath": PATH,
    "MimeType": "application/json",
    "HttpConnections": 15,
    "InactivityTimeout": 290,
    "VisibilityTimeout": 300,
    "ErrorVisibilityTimeout": 60,
    "MaxRetries": 12,
}


def test_a_shared_bundle_has_the_daemons_options_outside_of_ebextensions(plan: Plan) -> None:
    files = bundle_files(plan)
    assert EBEXTENSIONS not in files
    settings = json.loads(files[WORKER_OPTIONS].content)
    assert {each["Namespace"] for each in settings} == {NAMESPACE}
    assert {each["OptionName"]: each["Value"] for each in settings} == {
        name: str(value) for name, value in OPTIONS.items()
    }


def test_a_bundle_for_workers_only_has_them_in_ebextensions(plan: Plan) -> None:
    content = bundle_files(make(is_shared=False))[EBEXTENSIONS].content
    assert yaml.safe_load(content) == {"option_settings": {NAMESPACE: OPTIONS}}


def test_gunicorn_waits_for_tasks_that_are_within_their_limit(plan: Plan) -> None:
    assert bundle_files(plan)[PROCFILE].content == (
        "web: gunicorn --bind 127.0.0.1:8000 --workers=1 --threads=15 --graceful-timeout 270 "
        "shop.wsgi\n"
    )


def test_cron_yaml_is_what_the_daemon_reads(plan: Plan, tmp_path: Path, env: Environment) -> None:
    (tmp_path / CRON).write_text(bundle_files(plan)[CRON].content)
    (task,) = cron.load(tmp_path / CRON)
    assert (task.name, task.url, task.schedule) == ("night", PATH, "0 4 * * *")
    env(DISPATCH_TABLE="record=tests.jobs.record")
    assert CRON not in bundle_files(make())


def test_each_tier_gets_no_more_than_it_needs(plan: Plan) -> None:
    files = bundle_files(plan)
    queue = f"arn:aws:sqs:eu-west-1:{ACCOUNT}:shop-work"
    (web,) = json.loads(files[WEB_POLICY].content)["Statement"]
    assert (web["Action"], web["Resource"]) == (["sqs:SendMessage"], [queue])
    run, dead, *others = json.loads(files[WORKER_POLICY].content)["Statement"]
    assert run["Resource"] == [queue]
    assert set(run["Action"]) == {
        "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:SendMessage",
    }  # fmt: skip
    assert (dead["Action"], dead["Resource"]) == (["sqs:SendMessage"], [f"{queue}-dead-letter"])
    assert not any("sqs:" in str(each["Action"]) for each in others)


def test_a_worker_may_only_send_to_the_queues_that_it_does_not_read(env: Environment) -> None:
    arns = [f"arn:aws:sqs:eu-west-1:{ACCOUNT}:{name}" for name in ("one", "two", "three")]
    env(DISPATCH_QUEUES=f"one={arns[0]} two={arns[1]} three={arns[2]}")
    content = bundle_files(make(queue="two"))[WORKER_POLICY].content
    statements = {each["Sid"]: each for each in json.loads(content)["Statement"]}
    assert statements["RunTasks"]["Resource"] == [arns[1]]
    assert statements["SendTasks"]["Resource"] == [arns[0], arns[2]]
    assert statements["SendTasks"]["Action"] == ["sqs:SendMessage"]


def test_policies_of_another_part_of_aws_have_its_arns(env: Environment) -> None:
    env(DISPATCH_QUEUES=f"q=arn:aws-cn:sqs:cn-north-1:{ACCOUNT}:q")
    content = bundle_files(make())[WORKER_POLICY].content
    assert "arn:aws:" not in content
    assert "arn:aws-cn:s3:::elasticbeanstalk-*" in content


# --- the hook --------------------------------------------------------------------------------


def run_hook(plan: Plan, staging: Path, **variables: str) -> Path:
    """Run the script as Elastic Beanstalk does; the file that it writes."""
    script = bundle_files(plan)[HOOKS[0]].content.replace(NGINX_STAGING, str(staging))
    environment = {"PATH": os.environ["PATH"], **variables}
    subprocess.run(["/bin/sh"], input=script, text=True, env=environment, check=True)
    return staging / "conf.d" / "elasticbeanstalk" / "beanstalk_dispatch.conf"


def test_both_hooks_are_the_same_executable_script(plan: Plan) -> None:
    first, second = (bundle_files(plan)[path] for path in HOOKS)
    assert first == second
    assert first.is_executable


@pytest.mark.parametrize("flag", ["True", "true", "YES", "on", "1"])
def test_a_worker_gets_nginxs_limits(plan: Plan, tmp_path: Path, flag: str) -> None:
    assert "proxy_read_timeout 280s;" in run_hook(plan, tmp_path, BEANSTALK_WORKER=flag).read_text()


@pytest.mark.parametrize("variables", [{}, {"BEANSTALK_WORKER": "False"}, {"BEANSTALK_WORKER": ""}])
def test_a_web_machine_of_the_same_bundle_does_not(
    plan: Plan, tmp_path: Path, variables: dict[str, str]
) -> None:
    run_hook(plan, tmp_path, BEANSTALK_WORKER="True")
    assert not run_hook(plan, tmp_path, **variables).exists()


@pytest.mark.parametrize("server", ["http://127.0.0.1:8000", "http://docker"])
def test_the_platforms_own_server_is_behind_the_location(
    plan: Plan, tmp_path: Path, server: str
) -> None:
    folder = tmp_path / "conf.d" / "elasticbeanstalk"
    folder.mkdir(parents=True)
    (folder / "00_application.conf").write_text(
        f"location / {{\n    proxy_pass          {server};\n    proxy_http_version 1.1;\n}}\n"
    )
    for _ in range(2):
        content = run_hook(plan, tmp_path, BEANSTALK_WORKER="True").read_text()
        assert f"    proxy_pass {server};\n" in content
        assert "UPSTREAM" not in content


@pytest.fixture
def upstream() -> Iterator[int]:
    """A server that answers with the headers and the size of a request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = len(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(dict(self.headers) | {"size": size}).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def post(port: int, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body, {"Host": "localhost", "X-Real-IP": "8.8.8.8"})
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if response.status == 200 else {}
    finally:
        connection.close()


def test_nginx_takes_the_location_and_sends_its_headers(
    plan: Plan, tmp_path: Path, upstream: int
) -> None:
    file = run_hook(plan, tmp_path, BEANSTALK_WORKER="True")
    file.write_text(file.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{upstream}"))
    tmp_path.chmod(0o755)
    with nginx(upstream, include=str(file)) as port:
        status, headers = post(port, PATH, b"x" * 1_500_000)
        assert (status, headers["size"]) == (200, 1_500_000)
        assert headers["X-Proxy-Read-Timeout"] == "280"
        assert headers["X-Request-Start"].startswith("t=1")
        assert headers["X-Real-IP"] == headers["X-Forwarded-For"] == "127.0.0.1"
        assert headers["Host"] == "localhost"
        status, headers = post(port, "/", b"x")
        assert (status, "X-Request-Start" in headers) == (200, False)
        assert post(port, "/", b"x" * 1_500_000)[0] == 413
