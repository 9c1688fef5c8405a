"""The tests that beanstalk-dispatch 0.1.5 ships, run against this package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import beanstalk_dispatch
from tests.services import ROOT

OLD_TESTS = ROOT / "tests" / "compatibility_0_1"
SETTINGS = """
SECRET_KEY = "tests-only"
INSTALLED_APPS = ["beanstalk_dispatch"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
ROOT_URLCONF = "old_urls"
SILENCED_SYSTEM_CHECKS = ["beanstalk_dispatch.E018"]  # each test sets a table of its own
"""
URLS = """
from django.urls import include, re_path
urlpatterns = [re_path(r"^beanstalk_dispatch/", include("beanstalk_dispatch.urls"))]
"""
# The shim for its module `common`: names that its tests import.
COMMON = """
import json
ARGS, FUNCTION, KWARGS = "args", "function", "kwargs"
def create_request_body(function_name, *args, **kwargs):
    return json.dumps({FUNCTION: function_name, ARGS: args, KWARGS: kwargs})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has this package with the old tests inside it, where they expect to be."""
    package = tmp_path / "beanstalk_dispatch"
    shutil.copytree(Path(beanstalk_dispatch.__file__).parent, package)
    shutil.copytree(OLD_TESTS, package / "tests")
    (package / "common.py").write_text(COMMON)
    (tmp_path / "old_settings.py").write_text(SETTINGS)
    (tmp_path / "old_urls.py").write_text(URLS)
    return tmp_path


def test_the_old_tests_pass_but_for_two(project: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "django", "test", "beanstalk_dispatch", "--shuffle"],
        cwd=project,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "old_settings",
            "PYTHONPATH": str(project),
            "BEANSTALK_WORKER": "True",
            "BEANSTALK_DISPATCH_MESSAGE_FORMAT": "base64",
            "BEANSTALK_DISPATCH_CREATE_QUEUES": "True",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert re.search(r"Ran 17 tests", run.stderr), run.stderr
    failed = re.findall(r"^(?:FAIL|ERROR): (\w+)", run.stderr, re.MULTILINE)
    assert sorted(failed) == ["test_invalid_function_pointer", "test_task_error_timeout"], (
        run.stderr
    )
    assert """!= 'call(TimeoutError())'""" in run.stderr
    # A path that does not import is a broken deployment, and its messages wait.
    assert "AssertionError: 503 != 400" in run.stderr
