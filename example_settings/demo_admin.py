"""Show dead letters in Django's admin: tasks that have failed, in a project that runs here.

The demo starts an SQS server, lets a worker run tasks that fail, and serves the admin with what is
on the dead-letter queue then. It prints the address and a login that is made for this run. Ctrl-C
ends it, and nothing is left.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from moto.server import ThreadedMotoServer

from example_settings.demo import HERE, create_queues, environment, free_port

LETTERS = 13
DEADLINE = 60.0  # seconds
PAGES = "/admin/beanstalk_workbench/deadletter/"


def configure(endpoint: str, directory: Path) -> None:
    """Set the variables of this process and of the worker, and prepare Django."""
    os.environ.update(environment(endpoint))
    os.environ.update({
        "DJANGO_SETTINGS_MODULE": "example_settings.admin_settings",
        "DATABASE_URL": f"sqlite:///{directory / 'db.sqlite3'}",
        "LOG_LEVEL": "CRITICAL",
        "BEANSTALK_WORKER": "True",
        "BEANSTALK_DISPATCH_QUEUES": "mail=demo-mail work=demo-work dead=demo-work-dead-letter",
        "BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE": "dead",
    })  # fmt: skip
    import django

    django.setup()


def create_user() -> str:
    """Create the tables and a superuser. Return the password."""
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    password = secrets.token_urlsafe(9)
    User.objects.create_superuser("demo", password=password)
    return password


def schedule_failing_tasks() -> None:
    """Schedule tasks whose letters come from this package, and tasks whose letters SQS moves."""
    from beanstalk_dispatch.client import schedule_function
    from beanstalk_dispatch.conf import get_config
    from beanstalk_dispatch.messages.message import Message
    from beanstalk_dispatch.safe_task import SafeTask
    from beanstalk_dispatch.sqs.opening import open_queue

    from . import jobs

    for order in range(42, 48):
        schedule_function("work", SafeTask(jobs.charge_card, max_retries=0), order)
    for year in ("2025", "2026"):
        schedule_function("work", jobs.BuildReport(max_retries=0), year)
    for order in range(52, 56):
        schedule_function("work", SafeTask(jobs.charge_card, retry_backoff=0.1), order)
    work, keys = open_queue("work"), get_config().signing_keys
    wrong = Message(function="charge_card", args=[61], options={"timeout": "soon"})
    work.send(wrong.encode(queue=work.name, keys=keys), {})


def run_worker() -> None:
    """Run the tasks, until all letters are on the dead-letter queue or the time is over."""
    from beanstalk_dispatch.queues.waiting import queue_statuses

    command = [sys.executable, "-m", "django", "beanstalk_worker", "work", "--wait=1"]
    worker = subprocess.Popen(
        command, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: sum(
            each.attributes.total
            for each in queue_statuses()
            if each.is_dead_letter_queue and each.attributes
        ) >= LETTERS)  # fmt: skip
    finally:
        worker.terminate()
        worker.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition is true, or end the demo after DEADLINE seconds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the dead letters have not arrived in time")
        time.sleep(0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="of the admin (default: a free one)")
    port = parser.parse_args().port or free_port()
    # A shell starts a background job with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    try:
        with tempfile.TemporaryDirectory() as directory:
            configure(endpoint, Path(directory))
            create_queues(endpoint)
            password = create_user()
            print("running tasks that fail, in about ten seconds …", flush=True)
            schedule_failing_tasks()
            run_worker()
            print(f"http://127.0.0.1:{port}{PAGES}\nuser: demo  password: {password}\n"
                  "Ctrl-C ends it.", flush=True)  # fmt: skip
            serve(port)
    finally:
        server.stop()


def serve(port: int) -> None:
    """Serve the admin until Ctrl-C."""
    from django.core.management import call_command

    with Path(os.devnull).open("w") as nowhere:
        call_command("runserver", f"127.0.0.1:{port}", use_reloader=False, stdout=nowhere)


if __name__ == "__main__":
    main()
