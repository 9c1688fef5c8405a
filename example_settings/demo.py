"""Show the whole path on one machine: web process → SQS → daemon → gunicorn → SafeTask.

The demo starts an SQS server, a web process, a worker under gunicorn with 15 threads, and a
stand-in for the daemon. It schedules the sample tasks, shows the outcome of each, and stops
everything. The exit code is 1 if a task does not end as it should.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

HERE = Path(__file__).resolve().parent
REGION = "eu-west-1"
RECEIVES = 3  # after this number SQS moves a message to the dead-letter queue
DEADLINE = 50.0  # seconds
OUTCOME = re.compile(r"task id=(\S+) function=(\S+) outcome=(\S+) receive_count=(\d+) ms=(\d+)")
TABLE = {
    "send_welcome": "send_welcome",
    "resize_image": "resize_image",
    "charge_card": "charge_card",
    "build_report": "BuildReport",
    "sync_stock": "SyncStock",
    "clean_up": "clean_up",
}
EXPECTED = {
    "send_welcome": ["done"],
    "resize_image": ["done"],
    "sync_stock": ["retry", "done"],
    "clean_up": ["done"],
    "charge_card": ["failed"] * RECEIVES + ["dead-lettered"],
    "build_report": ["timed-out"] * RECEIVES + ["dead-lettered"],
}


def environment(endpoint: str) -> dict[str, str]:
    """Return the variables that would be environment properties on Elastic Beanstalk."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HERE.parent),
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "example_settings.settings",
        "SECRET_KEY": "for-the-demo-only",
        "DATABASE_URL": "sqlite://:memory:",
        "BEANSTALK_DISPATCH_TABLE": " ".join(
            f"{name}=example_settings.jobs.{attribute}" for name, attribute in TABLE.items()
        ),
        "BEANSTALK_DISPATCH_QUEUES": "mail=demo-mail work=demo-work",
        "BEANSTALK_DISPATCH_PERIODIC_TASKS": "clean_up",
        "BEANSTALK_DISPATCH_SIGNING_KEYS": secrets.token_urlsafe(),
        "BEANSTALK_DISPATCH_CRASH_LEDGER": "off",  # a later demo has nothing to do with this one
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": endpoint,
        "BEANSTALK_DISPATCH_SQS_REGION": REGION,
        "BEANSTALK_DISPATCH_SQS_KEY": "demo",
        "BEANSTALK_DISPATCH_SQS_SECRET": "demo",
        **sentry(),
    }


def sentry() -> dict[str, str]:
    """Return the variables that turn Sentry on, if SENTRY_DSN is set. See docs/sentry.md."""
    given = {name: value for name, value in os.environ.items() if name.startswith("SENTRY_")}
    if not given.get("SENTRY_DSN"):
        return {}
    return {
        "SENTRY_ENVIRONMENT": "demo",
        "SENTRY_TRACES_SAMPLE_RATE": "1",
        "BEANSTALK_DISPATCH_SAFE_TASK": "beanstalk_dispatch.contrib.sentry.SentrySafeTask",
        **given,
    }


class Demo:
    """Print events as they arrive, and collect the outcomes of each task."""

    def __init__(self, expected: Mapping[str, list[str]] = EXPECTED) -> None:
        self.started = time.monotonic()
        self.expected = expected
        self.stories: dict[str, list[str]] = {name: [] for name in expected}
        self.events: queue.Queue[tuple[str, str, str]] = queue.Queue()

    def say(self, what: str, task: str = "", detail: str = "") -> None:
        seconds = time.monotonic() - self.started
        print(f"{seconds:6.1f}s  {what:<14}{task:<14}{detail}".rstrip(), flush=True)

    def follow(self, process: subprocess.Popen[str], label: str) -> None:
        """Turn the log lines of a process into events. With DEMO_LOGS, print the other lines."""
        assert process.stdout is not None
        for line in process.stdout:
            if match := OUTCOME.search(line):
                task_id, function, outcome, receives, ms = match.groups()
                detail = f"delivery {receives}, {ms} ms, id {task_id[:8]}"
                self.events.put((function, outcome, detail))
            elif os.environ.get("DEMO_LOGS"):
                print(f"    {label}: {line}", end="", flush=True)

    def watch(self, dead_letters: threading.Event) -> None:
        """Print events until every task has all its outcomes, or the time is over."""
        while self.stories != self.expected and time.monotonic() - self.started < DEADLINE:
            try:
                function, outcome, detail = self.events.get(timeout=0.2)
            except queue.Empty:
                continue
            self.stories.setdefault(function, []).append(outcome)
            self.say(outcome, function, detail)
        dead_letters.set()

    def report(self) -> bool:
        if sentry():
            print(
                "\nIn Sentry: an issue for charge_card and one for build_report, each with the id"
            )
            print("of its task; a trace from POST /samples/ to each task; a monitor for clean_up.")
        print(f"\n{'task':<14}{'as it should':<14}story")
        for name, expected in self.expected.items():
            story = self.stories[name]
            print(f"{name:<14}{'yes' if story == expected else 'NO':<14}{' → '.join(story)}")
            if story != expected:
                print(f"{'':<14}{'expected':<14}{' → '.join(expected)}")
        return self.stories == self.expected


@contextmanager
def running(demo: Demo, label: str, *command: str, env: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=HERE
    )
    reader = threading.Thread(target=demo.follow, args=(process, label), daemon=True)
    reader.start()
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(150):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"nothing listens on 127.0.0.1:{port}; run with DEMO_LOGS=1 to see why")


def create_queues(endpoint: str) -> dict[str, str]:
    """Create the queues. Return the URL of each dead-letter queue by the queue's name."""
    client = boto3.client(
        "sqs",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
    )
    urls = {}
    for name in ("demo-mail", "demo-work"):
        urls[name] = client.create_queue(QueueName=f"{name}-dead-letter")["QueueUrl"]
        arn = client.get_queue_attributes(QueueUrl=urls[name], AttributeNames=["QueueArn"])[
            "Attributes"
        ]["QueueArn"]
        policy = {"deadLetterTargetArn": arn, "maxReceiveCount": RECEIVES}
        client.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(policy)})
    return urls


def follow_dead_letters(
    demo: Demo, endpoint: str, urls: dict[str, str], stop: threading.Event
) -> None:
    client = boto3.client(
        "sqs",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
    )
    while not stop.wait(0.5):
        for name, url in urls.items():
            for message in client.receive_message(QueueUrl=url).get("Messages", ()):
                text = message["Body"]
                body = json.loads(text[: text.rindex("}") + 1])  # what follows is the signature
                demo.events.put((body["function"], "dead-lettered", f"in {name}-dead-letter"))


def send_periodic() -> None:
    """Send the periodic tasks of cron.yaml now, without waiting for their minute."""
    import django

    django.setup()
    from beanstalk_dispatch.consumers.poller.cron_scheduler import Scheduler
    from beanstalk_dispatch.messages.cron import load

    Scheduler(load(HERE / "cron.yaml"), "work").send_due(datetime.now(UTC) + timedelta(minutes=5))


def main() -> int:
    demo = Demo()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs one line for each SQS request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    demo.say("started", "SQS server", endpoint)
    web, worker = free_port(), free_port()
    env = environment(endpoint)
    # Without Sentry: this process runs the SQS server, whose requests must not be in the traces.
    os.environ.update({name: value for name, value in env.items() if name not in sentry()})
    os.environ["LOG_LEVEL"] = "WARNING"
    urls = create_queues(endpoint)
    gunicorn = (sys.executable, "-m", "gunicorn", "example_settings.wsgi", "--threads=15",
                "--workers=1")  # fmt: skip
    stop = threading.Event()
    with ExitStack() as stack:
        stack.callback(server.stop)
        stack.enter_context(running(demo, "web", *gunicorn, f"--bind=127.0.0.1:{web}", env=env))
        stack.enter_context(
            running(
                demo,
                "worker",
                *gunicorn,
                f"--bind=127.0.0.1:{worker}",
                env=env | {"BEANSTALK_WORKER": "True"},
            )
        )
        wait_for(web)
        wait_for(worker)
        demo.say("started", "web process", f"gunicorn, http://127.0.0.1:{web}")
        demo.say("started", "worker", f"gunicorn --threads=15, http://127.0.0.1:{worker}")
        stack.enter_context(
            running(
                demo,
                "daemon",
                sys.executable,
                "-m",
                "django",
                "beanstalk_daemon",
                "mail",
                "work",
                f"http://127.0.0.1:{worker}/beanstalk_dispatch/dispatcher",
                "--error-visibility-timeout=1",
                "--wait=2",
                env=env,
            )
        )
        demo.say("started", "daemon", "in place of aws-sqsd")
        answer = urllib.request.Request(f"http://127.0.0.1:{web}/samples/", method="POST")
        with urllib.request.urlopen(answer, timeout=30) as response:
            for name, task_id in json.load(response).items():
                demo.say("scheduled", name, f"by the web process, id {task_id[:8]}")
        send_periodic()
        demo.say("scheduled", "clean_up", "from cron.yaml, now instead of at its minute")
        threading.Thread(
            target=follow_dead_letters, args=(demo, endpoint, urls, stop), daemon=True
        ).start()
        demo.watch(stop)
    return 0 if demo.report() else 1


if __name__ == "__main__":
    sys.exit(main())
