"""Enqueues tasks of every app, waits for their end, and prints what each app knows of them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from typing import Any

import django
from django.core.management import call_command

from tests.workers import until

wait = partial(until, every=0.1)  # each look is some queries


def main(marker: str) -> None:
    django.setup()
    call_command("migrate", verbosity=0)
    print("ready", flush=True)
    from maintenance_tasks.models import Run

    from beanstalk_dispatch.contrib.results.models import StoredResult
    from tests.apps_project import tasks

    unfinished = StoredResult.objects.exclude(status__in=["SUCCESSFUL", "FAILED"])
    # By itself: a copy for a retry runs beside its original if the process is killed between them.
    tasks.linger.enqueue(marker)
    wait(lambda: not unfinished.exists())
    enqueue_all()
    wait(lambda: StoredResult.objects.count() == 13)  # with overseer's retry
    wait(lambda: Run.objects.get().status == "succeeded")
    wait(lambda: not (unfinished.exists() or differences()))
    print(json.dumps(Counter(f"{row.function} {row.status}" for row in StoredResult.objects.all())))
    (lingered,) = StoredResult.objects.filter(function="tests.apps_project.tasks.linger")
    print(len(json.loads(lingered.worker_ids)))


def enqueue_all() -> None:
    from crontask import scheduler
    from maintenance_tasks import runner

    from tests.apps_project import tasks

    for number in range(3):
        tasks.add.enqueue(number, number)
    for good_at in (1, 2, 3, 9):
        tasks.flaky.enqueue(good_at)
    for number in (2, 0):
        tasks.reciprocal.enqueue(number)
    (job,) = [each for each in scheduler.get_jobs() if each.name == "tick"]
    job.func()
    runner.start("tests.apps_project.maintenance_tasks.Backfill")


def differences() -> list[Any]:
    """What the apps' tables say otherwise than ours."""
    from overseer.models import Run
    from tasks_monitor.models import TaskRecord

    from beanstalk_dispatch.contrib.results.models import StoredResult

    ours = {row.id: (row.status, row.worker_ids) for row in StoredResult.objects.all()}
    monitors = {
        row.result_id: (row.status, json.dumps(row.worker_ids, separators=(",", ":")))
        for row in TaskRecord.objects.all()
    }
    overseers = {row.result_id: row.status for row in Run.objects.all()}
    statuses = {name: status for name, (status, _) in ours.items()}
    return [*(ours.items() ^ monitors.items()), *(statuses.items() ^ overseers.items())]


main(sys.argv[1])
