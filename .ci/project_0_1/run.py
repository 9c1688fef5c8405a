"""Run the tasks of this project with the package that is installed here, behind its endpoint.

    python run.py PYTHON-WITH-0.1.5

One message is sent by 0.1.5 itself. The exit code is 1 if a task does not end as it should.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from moto.server import ThreadedMotoServer

from example_settings import demo

HERE = Path(__file__).resolve().parent
CALLS = (
    ("demo-mail", "send_welcome", [7]),
    ("demo-mail", "my_safe_task", ["1", "2"]),
    ("demo-work", "resize_image", ["cat.png"]),
    ("demo-work", "charge_card", [42]),
    ("demo-work", "build_report", ["2026"]),
)
EXPECTED = {
    name: story
    for name, story in demo.EXPECTED.items()
    if name in {"send_welcome", "resize_image", "charge_card", "build_report"}
} | {"from_0_1": ["done"], "my_safe_task": ["done"]}


def main() -> int:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    variables = {
        "PYTHONPATH": str(HERE),
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "shop_settings",
        "AWS_ENDPOINT_URL": endpoint,
    }
    os.environ.update(variables)
    watched = demo.Demo(EXPECTED)
    urls = demo.create_queues(endpoint)
    port = demo.free_port()
    stop = threading.Event()
    env = dict(os.environ)
    with ExitStack() as stack:
        stack.callback(server.stop)
        subprocess.run([sys.argv[1], "schedule.py", "from_0_1"], cwd=HERE, env=env, check=True)
        watched.say("scheduled", "from_0_1", "by beanstalk-dispatch 0.1.5")
        stack.enter_context(
            demo.running(
                watched, "worker", sys.executable, "-m", "gunicorn", "--threads=15",
                f"--bind=127.0.0.1:{port}", "django.core.wsgi:get_wsgi_application()",
                env=env | {"BEANSTALK_WORKER": "True"},
            )
        )  # fmt: skip
        demo.wait_for(port)
        stack.enter_context(
            demo.running(
                watched, "daemon", sys.executable, "-m", "django", "beanstalk_daemon",
                "demo-mail", "demo-work", f"http://127.0.0.1:{port}/beanstalk_dispatch/dispatcher",
                "--error-visibility-timeout=1", "--wait=2", env=env,
            )
        )  # fmt: skip
        schedule_all()
        threading.Thread(
            target=demo.follow_dead_letters, args=(watched, endpoint, urls, stop), daemon=True
        ).start()
        watched.watch(stop)
    return 0 if watched.report() else 1


def schedule_all() -> None:
    """Schedule the calls, as a web process of this project does."""
    import django

    django.setup()
    from beanstalk_dispatch.client import schedule_function

    for queue, name, arguments in CALLS:
        schedule_function(queue, name, *arguments)


if __name__ == "__main__":
    sys.exit(main())
