"""The peers: other libraries that put Python functions on SQS, at their newest, from PyPI.

Each has a virtual environment of its own, which the run makes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .compare import ROOT, Side

_FOLDER: Final = ROOT / ".venv-peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One library, and how to use it as its documentation says."""

    name: str
    requirement: str
    module: str
    env: dict[str, str] = field(default_factory=dict)
    worker: tuple[str, ...] = ()
    """The command of its worker, in ``bin`` of its environment. Empty if it has none."""
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Options → the same command with them, as further rows of drains."""
    no_worker: str = ""
    """What it has instead."""
    note: str = ""

    @property
    def folder(self) -> Path:
        return _FOLDER / self.name

    def side(self) -> Side:
        python = str(self.folder / "bin" / "python")
        return Side(
            name=self.name, module=self.module, python=python, is_peer=True, env=self.env,
            note=self.note,
        )  # fmt: skip


_CELERY: Final = (
    "celery", "-A", "benchmarks.sides.celery_sqs", "worker", "--concurrency=10",
    "--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat",
)  # fmt: skip

PEERS: Final = (
    Peer(
        name="beanstalk-dispatch 0.1.5", requirement="beanstalk-dispatch==0.1.5",
        module="beanstalk_dispatch_01", no_worker="has an endpoint for the daemon, and no poller",
        note="makes a client and looks the queue up for each send",
    ),
    Peer(
        name="Celery", requirement="celery[sqs]", module="celery_sqs",
        worker=_CELERY, variants={"--pool=threads": (*_CELERY, "--pool=threads")},
    ),
    Peer(
        name="dramatiq-sqs", requirement="dramatiq-sqs", module="dramatiq_sqs",
        worker=("dramatiq", "benchmarks.sides.dramatiq_sqs", "--processes=1", "--threads=10"),
    ),
    Peer(
        name="django-tasks-sqs", requirement="django-tasks-sqs", module="django_tasks_sqs",
        env={"DJANGO_SETTINGS_MODULE": "benchmarks.sides.django_tasks_sqs_settings"},
        worker=("django-admin", "sqs_worker", "--concurrency=10", "--max-messages=10"),
    ),
    Peer(
        name="taskiq-aio-sqs", requirement="taskiq-aio-sqs", module="taskiq_sqs",
        worker=("taskiq", "worker", "benchmarks.sides.taskiq_sqs:broker", "--workers=1",
                "--max-threadpool-threads=10", "--log-level=WARNING"),
    ),
    Peer(
        name="django-lambda-tasks", requirement="django-lambda-tasks", module="django_lambda_tasks",
        no_worker="runs on AWS Lambda only", note="makes a client for each send",
    ),
)  # fmt: skip


def install(peers: Sequence[Peer] = PEERS) -> dict[str, str]:
    """Make the missing environments. Returns why one could not be made, by the peer's name."""
    failed = {}
    for peer in peers:
        ready = peer.folder / "ready"
        if ready.exists():
            continue
        print(f"installing {peer.requirement}", flush=True)
        try:
            subprocess.run((sys.executable, "-m", "venv", "--clear", peer.folder), check=True)
            subprocess.run(
                (peer.folder / "bin" / "python", "-m", "pip", "install", "--quiet",
                 "--disable-pip-version-check", peer.requirement),
                check=True, capture_output=True, text=True,
            )  # fmt: skip
        except subprocess.CalledProcessError as exc:
            lines = (exc.stderr or str(exc)).strip().splitlines()
            failed[peer.name] = f"could not be installed: {lines[-1]}"
        else:
            ready.touch()
    return failed
