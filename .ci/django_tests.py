"""Run Django's own tests of its task framework against the backends of this package.

    python .ci/django_tests.py

The tests are not in Django's wheel. So pip downloads the source of the installed version from PyPI,
and this needs a network. A test that is left out is run, too, and must fail: so no test is left out
that could pass. The exit code is 1 if a test fails that should pass, or passes although it is left
out.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django

ROOT = Path(__file__).resolve().parents[1]
DIRECT = "test_immediate_backend"
STORED = "test_dummy_backend"
GENERAL = "test_tasks"
ALL_MODULES = (DIRECT, STORED, GENERAL)
NOT_OURS = {"test_custom_backend": "It tests backends that the module itself defines."}
"""The modules that no backend of this package can be put in place of."""

NO_PRIORITY = "SQS has no priorities, so SQSBackend refuses a priority."
IN_MEMORY = "It changes an object that DummyBackend keeps in memory. A store has no such object."


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A way to put our backend in the place of Django's."""

    title: str
    modules: tuple[str, ...]
    install: Callable[[], None]
    environment: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tests that cannot pass, and why."""


def put_sqs_in_place_of_immediate() -> None:
    """Tasks run in the calling process, through the message."""
    from django.tasks.backends import immediate

    from beanstalk_dispatch.contrib.tasks import SQSBackend

    immediate.ImmediateBackend = SQSBackend  # type: ignore[assignment,misc]


def put_sqs_in_place_of_dummy() -> None:
    """Messages lie on a queue, and their results are in a cache."""
    from django.core.cache import cache
    from django.tasks.backends import dummy

    from beanstalk_dispatch.contrib.tasks import SQSBackend
    from beanstalk_dispatch.signals import task_scheduled

    sent: list[str] = []

    class StoredBackend(SQSBackend):
        """With the two things that Django's DummyBackend has for its tests."""

        @property
        def results(self) -> list[Any]:
            """What is kept of all that was sent."""
            return [self.get_result(task_id) for task_id in sent]

        def clear(self) -> None:
            """Forget all results."""
            sent.clear()
            cache.clear()

    def remember(task_id: str, **kwargs: Any) -> None:
        sent.append(task_id)

    task_scheduled.connect(remember, weak=False)
    dummy.DummyBackend = StoredBackend  # type: ignore[assignment,misc]


def put_test_backends_in_place() -> None:
    """The backends for a project's own tests."""
    from django.tasks.backends import dummy, immediate

    from beanstalk_dispatch.contrib.tasks import testing

    immediate.ImmediateBackend = testing.ImmediateBackend  # type: ignore[misc]
    dummy.DummyBackend = testing.DummyBackend  # type: ignore[misc]


SETUPS = {
    "here": Setup(
        title="SQSBackend with BEANSTALK_DISPATCH_EXECUTE_SYNCHRONOUSLY, for ImmediateBackend",
        modules=(DIRECT,),
        install=put_sqs_in_place_of_immediate,
        environment={"BEANSTALK_DISPATCH_EXECUTE_SYNCHRONOUSLY": "True"},
        left_out={
            f"{DIRECT}.ImmediateBackendTestCase.test_cannot_pass_run_after": (
                "SQSBackend takes run_after."
            ),
            f"{DIRECT}.ImmediateBackendTestCase.test_catches_exception": (
                "Of its two exceptions one is SystemExit. Raised in the main thread it ends the "
                "process, as it may be a server that stops."
            ),
        },
    ),
    "queue": Setup(
        title="SQSBackend with a queue and BEANSTALK_DISPATCH_RESULTS, for DummyBackend",
        modules=(STORED, GENERAL),
        install=put_sqs_in_place_of_dummy,
        environment={
            "BEANSTALK_DISPATCH_RESULTS": "default",
            "BEANSTALK_DISPATCH_RESULT_ARGUMENTS": "True",
        },
        left_out={
            f"{STORED}.DummyBackendTestCase.test_refresh_result": IN_MEMORY,
            f"{STORED}.DummyBackendTestCase.test_refresh_result_async": IN_MEMORY,
            f"{GENERAL}.TaskTestCase.test_chained_using": NO_PRIORITY,
            f"{GENERAL}.TaskTestCase.test_invalid_priority": NO_PRIORITY,
            f"{GENERAL}.TaskTestCase.test_using_priority": NO_PRIORITY,
        },
    ),
    "testing": Setup(
        title="contrib.tasks.testing's backends, for ImmediateBackend and DummyBackend",
        modules=ALL_MODULES,
        install=put_test_backends_in_place,
        environment={},
    ),
}


# --- in one process for each setup -----------------------------------------------------------


def run(setup: Setup, folder: Path) -> bool:
    """Run the tests of one setup. Whether all went as expected."""
    sys.path[:0] = [str(ROOT), str(folder)]
    django.setup()
    logging.getLogger().handlers[:] = [logging.NullHandler()]  # there are lines for each task
    setup.install()
    suite = unittest.TestSuite(
        unittest.defaultTestLoader.loadTestsFromName(f"tasks.{module}") for module in setup.modules
    )
    names = set()
    for test in tests_of(suite):
        name = test.id().removeprefix("tasks.")
        names.add(name)
        if name in setup.left_out:
            # As unittest.expectedFailure does it.
            test.__unittest_expecting_failure__ = True  # type: ignore[attr-defined]
    if unknown := setup.left_out.keys() - names:
        print(f"left out, but not there: {', '.join(sorted(unknown))}")
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    return result.wasSuccessful() and not unknown


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_of(each)
        else:
            yield each


# --- in the process that downloads -----------------------------------------------------------


def download(folder: Path) -> None:
    """Write the folder ``tasks`` of Django's tests."""
    version = django.get_version()
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=django",
         f"--dest={folder}", f"django=={version}"],
        check=True,
    )  # fmt: skip
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        prefix = f"{source.getnames()[0].partition('/')[0]}/tests/"
        for member in source.getmembers():
            if member.name.startswith(f"{prefix}tasks/") and member.name.endswith(".py"):
                member.name = member.name.removeprefix(prefix)
                source.extract(member, folder, filter="data")


def start(name: str, folder: Path, endpoint: str) -> bool:
    """Run one setup in a process of its own, since it changes modules of Django."""
    setup = SETUPS[name]
    print(f"\n=== {setup.title}", flush=True)
    variables = {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "BEANSTALK_WORKER": "True",
        "BEANSTALK_DISPATCH_TASKS": "tasks.tasks",
        "BEANSTALK_DISPATCH_CRASH_LEDGER": "off",
        **setup.environment,
    }
    command = [sys.executable, __file__, name, str(folder)]
    done = subprocess.run(command, env=os.environ | variables, check=False)
    for test, reason in setup.left_out.items():
        print(f"left out: {test}: {reason}")
    return done.returncode == 0


def main() -> int:
    if len(sys.argv) > 1:
        return 0 if run(SETUPS[sys.argv[1]], Path(sys.argv[2])) else 1
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    print(f"Django {django.get_version()}")
    for module, reason in NOT_OURS.items():
        print(f"left out: {module}: {reason}")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client(
            "sqs", endpoint_url=endpoint, region_name="us-east-1",
            aws_access_key_id="tests", aws_secret_access_key="tests",
        ).create_queue(QueueName="default")  # fmt: skip
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            download(folder)
            passed = [start(name, folder, endpoint) for name in SETUPS]
            return 0 if all(passed) else 1
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
