"""The example project, run as its README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from xml.etree import ElementTree as ET

import pytest
import yaml

from beanstalk_dispatch.messages import cron
from docs import demo_picture, pictures
from example_settings import demo, demo_admin, jobs
from tests.kent import Kent
from tests.services import ROOT

pytestmark = pytest.mark.usefixtures("unmeasured")
EXAMPLE = ROOT / "example_settings"


def test_the_demo_ends_as_it_should_and_sentry_shows_it() -> None:
    """One run of twenty seconds: with Sentry, the demo shows all that it shows without."""
    kent = Kent()
    try:
        run = subprocess.run(
            [sys.executable, "-m", "example_settings.demo"],
            cwd=ROOT,
            env=os.environ | {"SENTRY_DSN": kent.dsn},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        events, traces, check_ins = map(kent.of, ["event", "transaction", "check_in"])
    finally:
        kent.stop()
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(" yes ") == len(demo.EXPECTED)
    assert "Traceback" not in run.stderr
    assert "In Sentry: an issue for charge_card and one for build_report" in run.stdout
    functions = [event["tags"]["function"] for event in events]
    assert sorted(functions) == ["build_report"] * demo.RECEIVES + ["charge_card"] * demo.RECEIVES
    assert [(each["monitor_slug"], each["status"]) for each in check_ins] == [
        ("clean_up", "in_progress"), ("clean_up", "ok")]  # fmt: skip
    assert check_ins[0]["monitor_config"]["schedule"]["type"] == "crontab"
    (request,) = [each for each in traces if each["transaction"] == "/samples/"]
    trace_id = request["contexts"]["trace"]["trace_id"]
    told = {
        each["transaction"] for each in traces if each["contexts"]["trace"]["trace_id"] == trace_id
    }
    assert told == {"/samples/", *demo.EXPECTED} - {"clean_up"}


def test_the_picture_of_the_demo_shows_the_story_of_each_task() -> None:
    picture = demo_picture.PICTURE.read_text()
    assert demo_picture.STYLE in picture
    for name, story in demo.EXPECTED.items():
        line = f"{name:<14}{'yes':<14}{' → '.join(story)}"
        for drawn in (picture, demo_picture.draw([line])):
            assert line in "".join(ET.fromstring(drawn).itertext()).replace("\u00a0", " ")


def test_the_admin_shows_the_letters_of_tasks_that_fail() -> None:
    """The demo's address and login lead to them; Ctrl-C ends it."""
    with pictures.demo() as (url, password):
        session, _ = pictures.log_in(url, password)
        page = urllib.request.Request(
            url + pictures.QUEUE, headers={"Cookie": f"sessionid={session}"}
        )
        with urllib.request.urlopen(page, timeout=30) as response:
            dead_letters = response.read().decode()
    assert f"sample of {demo_admin.LETTERS} of about {demo_admin.LETTERS}" in dead_letters
    for exception in ("RuntimeError", "TaskTimeout", "MalformedMessage", "moved by SQS"):
        assert re.search(rf"<td[^>]*>{exception}</td>", dead_letters)


def test_the_demo_fails_if_a_story_ends_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    told = demo.Demo()
    told.stories = {name: list(story) for name, story in demo.EXPECTED.items()}
    assert told.report()
    told.stories["send_welcome"] = ["failed"]
    assert not told.report()
    assert "NO" in capsys.readouterr().out


def test_cron_yaml_names_a_listed_task() -> None:
    names = {task.name for task in cron.load(EXAMPLE / "cron.yaml")}
    assert names <= demo.TABLE.keys()
    assert all(hasattr(jobs, attribute) for attribute in demo.TABLE.values())


def test_each_limit_leaves_room_for_the_one_before() -> None:
    config = yaml.safe_load((EXAMPLE / ".ebextensions/worker.config").read_text())
    options = config["option_settings"]
    daemon = options["aws:elasticbeanstalk:sqsd"]
    environment = options["aws:elasticbeanstalk:application:environment"]
    nginx = (EXAMPLE / ".platform/nginx/conf.d/beanstalk_dispatch.conf").read_text()
    assert environment["BEANSTALK_DISPATCH_TASK_TIMEOUT"] == "4m"
    assert "proxy_read_timeout 280s;" in nginx
    assert 280 < daemon["InactivityTimeout"] < daemon["VisibilityTimeout"]
