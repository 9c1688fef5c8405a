"""A project of beanstalk-dispatch 0.1.5 under gunicorn goes through docs/migrating.md.

`make release-check` lets 0.1.5 itself send the messages; here they are what it sends.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services import ROOT, Gunicorn, until

OLD_PROJECT = ROOT / ".ci" / "project_0_1"
PAGE = (ROOT / "docs" / "migrating.md").read_text()
FAILS = """
def fail():
    raise ValueError("no good")
"""


def logging_of(text: str) -> str:
    """Return the setting LOGGING in a page or in settings."""
    (found,) = re.findall(r"^LOGGING = \{\n.*?^\}\n", text, re.DOTALL | re.MULTILINE)
    return str(found)


@contextmanager
def old_project(folder: Path, *, settings: str = "", **variables: str) -> Iterator[Gunicorn]:
    """Serve the project with this package, after the steps that ``variables`` are of."""
    shutil.copytree(OLD_PROJECT, folder, dirs_exist_ok=True)
    path = folder / "shop_settings.py"
    old = path.read_text()
    table = '\nBEANSTALK_DISPATCH_TABLE["fail"] = "beanstalk_tasks.fail"\n'
    path.write_text(old.replace(logging_of(old), "") + settings + table)
    with (folder / "beanstalk_tasks.py").open("a") as tasks:
        tasks.write(FAILS)
    server = Gunicorn(
        folder,
        DJANGO_SETTINGS_MODULE="shop_settings",
        PYTHONPATH=str(folder),
        BEANSTALK_WORKER="True",
        BEANSTALK_DISPATCH_MESSAGE_FORMAT="base64",
        GUNICORN_CMD_ARGS="--threads=15 --env DJANGO_SETTINGS_MODULE=shop_settings",
        **variables,
    )
    try:
        until(server.is_up)
        yield server
    finally:
        server.stop()


def body_of_0_1(function: str, *args: str) -> bytes:
    message = {"function": function, "args": list(args), "kwargs": {}}
    return base64.b64encode(json.dumps(message).encode())


def test_without_logging_only_failures_are_in_the_log_as_the_page_says(tmp_path: Path) -> None:
    with old_project(tmp_path, BEANSTALK_DISPATCH_ON_FAILURE="acknowledge") as server:
        assert server.post(body_of_0_1("my_safe_task", "1"))[0] == 200
        assert server.post(body_of_0_1("fail"))[0] == 200  # as 0.1 answered it
        until(lambda: "function=fail outcome=failed receive_count=1" in server.log())
        assert "function=my_safe_task" not in server.log()


@pytest.mark.parametrize(("on_failure", "status"), [("acknowledge", 200), ("redeliver", 500)])
def test_with_the_lines_of_the_page_each_task_is_in_the_log(
    tmp_path: Path, on_failure: str, status: int
) -> None:
    variables = {"BEANSTALK_DISPATCH_ON_FAILURE": on_failure}
    with old_project(tmp_path, settings=logging_of(PAGE), **variables) as server:
        assert server.post(body_of_0_1("my_safe_task", "1"))[0] == 200
        assert server.post(body_of_0_1("fail"))[0] == status
        until(lambda: "function=fail outcome=failed receive_count=1" in server.log())
        assert "function=my_safe_task outcome=done receive_count=1" in server.log()


def test_the_rehearsal_of_a_release_has_the_same_lines() -> None:
    assert logging_of((OLD_PROJECT / "shop_settings.py").read_text()) == logging_of(PAGE)
