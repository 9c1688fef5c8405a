"""The rows of the benchmark, by name, in the order in which they run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from . import drain, turns
from .compare import CERTIFICATE, ROOT, Child, Line, Run, Side, Target, Turn, line_of
from .peers import Peer
from .processes import gunicorn, load, post

SIGNING_KEY: Final = "k" * 43  # as long as a key of secrets.token_urlsafe(32)
SIGNED: Final = {"BEANSTALK_DISPATCH_SIGNING_KEYS": SIGNING_KEY}
LISTED: Final = {"BEANSTALK_DISPATCH_TASKS": "benchmarks.sides.ours_tasks_listed"}
LATENCY_SECONDS: Final = 0.005
FIFTY: Final = 50

RAW: Final = Side(name="boto3 by hand", module="raw")
RAW_AGAIN: Final = Side(name="boto3 by hand, again", module="raw", note="the noise of this row")
FLOOR: Final = Side(name="the floor", module="floor", note="no retries, credentials or errors")
OURS: Final = Side(name="schedule_function", module="ours")


def ours(name: str, **env: str) -> Side:
    return Side(name=name, module="ours", env=env)


def outbox_side(run: Run) -> Side:
    """Stores each call in SQLite. ``migrate`` comes first, and ``flush`` waits for the sends."""
    return ours(
        "the outbox",
        DJANGO_SETTINGS_MODULE="benchmarks.outbox_settings",
        DATABASE_URL=f"sqlite:///{run.directory}/db",
        BEANSTALK_DISPATCH_OUTBOX="always",
    )


def _by_name(children: Sequence[Child]) -> dict[str, Child]:
    return {child.side.name: child for child in children}


def one_send(run: Run, peers: Sequence[Peer]) -> None:
    """One message: the CPU is the cost, for SQS answers at once."""
    signed = ours("schedule_function, signed", **SIGNED)
    logged = ours("schedule_function, signed, LOG_LEVEL=INFO", **SIGNED, LOG_LEVEL="INFO")
    sides = [RAW, RAW_AGAIN, FLOOR, OURS, signed, logged, *(peer.side() for peer in peers)]
    with run.children(sides, "one send", "send") as children:
        turns = [
            # One that makes a client for each message takes ten times as long.
            Turn(name=each.side.name, child=each, operation="one", warm_up=2,
                 count=1 if each.side.note and each.side.is_peer else 10)
            for each in children
        ]  # fmt: skip
        targets = {OURS.name: Target(1.02, "cpu"), signed.name: Target(1.09, "cpu")}
        run.compare("one send", "send", turns, rounds=run.rounds(40, 300), targets=targets)
        named = _by_name(children)
        for row, operation, times in (("10 kB", "large", 10), ("32 threads", "threads", 320)):
            turns = [
                Turn(name=side.name, child=named[side.name], operation=operation, count=times,
                     warm_up=2 if times < 32 else 0)
                for side in (RAW, RAW_AGAIN, OURS)
            ]  # fmt: skip
            run.compare(f"one send, {row}", "send", turns, rounds=run.rounds(10, 50))


def over_https(run: Run, peers: Sequence[Peer]) -> None:
    """One message over TLS, as to AWS."""
    env = {
        "BENCHMARK_ENDPOINT": run.control.tls_endpoint,
        "BEANSTALK_DISPATCH_SQS_ENDPOINT_URL": run.control.tls_endpoint,
        "AWS_CA_BUNDLE": str(run.directory / CERTIFICATE),
    }
    sides = [replace(side, env=env) for side in (RAW, RAW_AGAIN, OURS)]
    with run.children(sides, "one send, https", "send") as children:
        turns = [Turn(name=each.side.name, child=each, operation="one", count=10, warm_up=2)
                 for each in children]  # fmt: skip
        run.compare("one send, https", "send", turns, rounds=run.rounds(10, 100))


def bulk(run: Run, peers: Sequence[Peer]) -> None:
    """Many messages at once, without latency. Most peers make a request for each message."""
    sides = [RAW, RAW_AGAIN, OURS, *(peer.side() for peer in peers if peer.worker)]
    with run.children(sides, "bulk", "message") as children:
        for count in (10, 100, 1_000):
            turns = []
            for each in children:
                is_single = each.side.module not in {"raw", "ours", "django_tasks_sqs"}
                if is_single and count != 100:
                    continue
                turns.append(Turn(
                    name="schedule_many" if each.side is OURS else each.side.name, child=each,
                    operation="many", count=20 if is_single else count, warm_up=10,
                    note="one request for each message" if is_single else "",
                ))  # fmt: skip
            run.compare(
                f"bulk of {count:,}", "message", turns,
                rounds=run.rounds(max(4, 200 // count), max(20, 2_000 // count)),
                targets={"schedule_many": Target(1.2, "cpu")},
            )  # fmt: skip


def waiting(run: Run, peers: Sequence[Peer]) -> None:
    """How long a view waits that schedules fifty tasks, at 5 ms to SQS."""
    outbox = outbox_side(run)
    sides = [RAW, RAW_AGAIN, OURS, outbox, *(peer.side() for peer in peers)]
    run.control.ask("Latency", seconds=LATENCY_SECONDS)
    with run.children(sides, "fifty in a view", "view") as children:
        turns = _fifty(children)
        run.compare(
            "fifty in a view, SQS 5 ms away", "view", turns, rounds=run.rounds(4, 20),
            targets={
                "on_commit": Target(0.10), "batching": Target(0.06), "gather": Target(0.04),
                "the outbox, schedule_many": Target(0.03),
                "the outbox, schedule × 50": Target(0.10),
            },
        )  # fmt: skip
        named = _by_name(children)
        turns = [
            Turn(name=name, child=named[side.name], operation="many", count=1_000, unit_count=1)
            for name, side in (
                ("boto3 by hand, batch after batch", RAW),
                ("boto3 by hand, again", RAW_AGAIN),
                ("schedule_many", OURS),
            )
        ]
        run.compare("1,000 at once, SQS 5 ms away", "call", turns, rounds=run.rounds(5, 20),
                    targets={"schedule_many": Target(0.2)})  # fmt: skip
    run.control.ask("Latency", seconds=0)


_TIMES: Final = ("wall", "cpu")

OWN_WAYS: Final = {
    "schedule_function × 50": "one", "on_commit": "on_commit", "batching": "batching",
    "schedule_many(50)": "many", "gather": "gather",
}  # fmt: skip
STORED_WAYS: Final = {
    "one row of Django's ORM, and no call": "one_row",
    "the outbox, schedule × 50": "outbox_each", "the outbox, schedule_many": "outbox_many",
}  # fmt: skip
FURTHER_WAYS: Final = {
    "django_tasks_sqs": ("enqueue_many", "many"), "taskiq_sqs": ("gather", "gather"),
}  # fmt: skip
"""Module of a peer → what it has besides one message after the other, and its operation."""


def _fifty(children: Sequence[Child]) -> list[Turn]:
    """Each way to schedule fifty tasks. The first is boto3 by hand, one after the other."""
    turns = []

    def add(name: str, child: Child, operation: str, after: Callable[[], object] | None) -> None:
        turns.append(Turn(name=name, child=child, operation=operation, count=FIFTY, unit_count=1,
                          after=after))  # fmt: skip

    for each in children:
        name = each.side.name
        if each.side is OURS:
            for way, operation in OWN_WAYS.items():
                add(way, each, operation, None)
        elif each.side.module == OURS.module:
            each.do("migrate")
            for way, operation in STORED_WAYS.items():
                add(way, each, operation, partial(each.do, "flush"))
        else:
            add(name, each, "one", None)
            if further := FURTHER_WAYS.get(each.side.module):
                add(f"{name}, {further[0]}", each, further[1], None)
    return turns


def first(run: Run, peers: Sequence[Peer]) -> None:
    """The first message of a process, and of a process that was forked, over a later one.

    The queue has an alias. Warming up looks it up if it is given by its name.
    """
    name = OURS.queue_name
    url = f"{run.control.endpoint}/000000000000/{name}"
    by_url, by_name = (ours("ours", BEANSTALK_DISPATCH_QUEUES=f"{name}={q}") for q in (url, name))
    sides = {
        "boto3 by hand, client made": (RAW, False),
        "schedule_function": (by_url, False),
        "schedule_function, warmed up": (by_url, True),
        "schedule_function, warmed up, queue by its name": (by_name, True),
    }
    firsts: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    laters: dict[tuple[str, str], list[Mapping[str, float]]] = {}

    def note(row: str, kind: str, times: Sequence[Mapping[str, float]]) -> None:
        firsts.setdefault((row, kind), []).append(times[0])
        later = {what: statistics.median(each[what] for each in times[1:]) for what in _TIMES}
        laters.setdefault((row, kind), []).append(later)

    for _ in range(run.rounds(5, 20)):
        for kind, (side, is_warm) in sides.items():
            with run.children([side], "first send", "send") as (child,):
                if is_warm:
                    child.do("warm")
                note("first send of a process", kind, [child.do("one", count=1) for _ in range(11)])
                if side is not RAW:
                    forked = kind.replace("schedule_function", "forked")
                    times = child.do("after_fork", is_warmed=is_warm)["result"]
                    note("first send after a fork", forked, times)
    for row, kind in sorted(firsts, key=lambda each: "fork" in each[0]):
        run.add(line_of(
            row, kind, "send", firsts[row, kind], laters[row, kind],
            target=Target(3.0, "cpu") if "warmed up" in kind else None,
            note="over a later send of the same process",
        ))  # fmt: skip


def endpoint(run: Run, peers: Sequence[Peer]) -> None:
    """The dispatcher over an empty view, in one process and over HTTP."""
    sentry = {
        "SENTRY_DSN": f"{run.control.endpoint.replace('://', '://key@')}/1",
        "BEANSTALK_DISPATCH_SAFE_TASK": "beanstalk_dispatch.contrib.sentry.SentrySafeTask",
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
    }
    leased = SIGNED | {"BEANSTALK_DISPATCH_LEASE_CACHE": "default"}
    plain = {"dispatcher": {}, "dispatcher, signed": SIGNED, "dispatcher, signed, lease": leased}
    watched = {"dispatcher, signed, lease, Sentry": leased | sentry}
    _in_the_process(run, "view, in the process", plain)
    # Sentry's SDK watches the empty view as well.
    _in_the_process(run, "view, in the process, with Sentry", watched)
    _over_http(run)


def _in_the_process(run: Run, row: str, kinds: Mapping[str, Mapping[str, str]]) -> None:
    sides = [Side(name=name, module="endpoint", env=env) for name, env in kinds.items()]
    with run.children(sides, row, "message") as children:
        views = (("an empty view", children[0]), ("an empty view, again", children[-1]))
        for child in children:
            child.do("prepare", count=50)
        turns = [
            Turn(name=name, child=child, operation=operation, count=20,
                 warm_up=5, after=partial(child.do, "prepare", count=25))
            for name, child, operation in (
                *((name, child, "empty") for name, child in views),
                *((child.side.name, child, "dispatch") for child in children),
            )
        ]  # fmt: skip
        run.compare(row, "message", turns, rounds=run.rounds(20, 200))


def _over_http(run: Run) -> None:
    """The dispatcher and an empty view in the same gunicorn, in turns, in several of them.

    The memory layout of one process favours one of the two.
    """
    from beanstalk_dispatch.messages.message import Message, now

    body = Message(function="noop", args=(1, "two"), kwargs={"x": 3}, sent_at=now())
    env = run.environment(OURS)
    requests = [post(path, body.encode(queue="q")) for path in ("empty", "beanstalk_dispatch")]
    found: dict[str, list[dict[str, float]]] = {"an empty view": [], "dispatcher": []}
    for _ in range(run.rounds(2, 5)):
        with gunicorn(env) as (port, process), load(env) as post_for:
            for number in range(-1, run.rounds(6, 12)):  # the first warms up
                for name, request in zip(found, requests, strict=True):
                    took = post_for(0.5, request, port, process)
                    found[name] += [took] if number >= 0 else []
    for name, figures in found.items():
        is_ours = name == "dispatcher"
        run.add(line_of(
            "view, over HTTP", name, "message", figures, found["an empty view"],
            target=Target(1.11) if is_ours else None,
            note="" if is_ours else "gunicorn with 15 threads",
        ))  # fmt: skip


def _hops(run: Run, count: int) -> None:
    row = "isolation, a hop of bare Python"
    for side, threads, work in (
        ("floor", 15, 0), ("some Python, in one process", 0, 3), ("half of it each, in two", 1, 3),
    ):  # fmt: skip
        command = (sys.executable, "-m", "benchmarks.sides.hop", *map(str, (threads, count, work)))
        hops = [json.loads(subprocess.check_output(command, cwd=ROOT)) for _ in range(5)]
        wall, cpu = (statistics.median(each) / count for each in zip(*hops, strict=True))
        run.add(Line(row=row, side=side, unit="message", wall=wall, cpu=cpu))


def isolation(run: Run, peers: Sequence[Peer]) -> None:
    """A no-op over HTTP and the tasks of a worker, in threads and in as many children.

    The floor is the bytes of a task, there and back, between a process of 15 threads and 15 others,
    without a line of this package. And what Python costs that two processes run in turns.
    """
    from beanstalk_dispatch.messages.message import Message, now

    _hops(run, run.rounds(3_000, 15_000))
    body = Message(function="noop", args=(1, "two"), kwargs={"x": 3}, sent_at=now())
    request = post("beanstalk_dispatch", body.encode(queue="q"))
    found: dict[str, list[dict[str, float]]] = {"thread": [], "process": []}
    env = run.environment(OURS)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(gunicorn(env | {"BEANSTALK_DISPATCH_ISOLATION": name}))
            for name in found
        }
        post_for = stack.enter_context(load(env))
        for number in range(-1, run.rounds(5, 20)):  # the first warms up
            for name in found if number % 2 else reversed(found):
                took = post_for(1.0, request, *servers[name])
                found[name] += [took] if number >= 0 else []
    for name, figures in found.items():
        run.add(line_of(
            "isolation, gunicorn, no-op", name, "message", figures, found["thread"],
            target=Target(1.2, "cpu") if name == "process" else None,
        ))  # fmt: skip
    drain.isolation(run)


def django_tasks(run: Run, peers: Sequence[Peer]) -> None:
    """Django's ``enqueue`` beside ``schedule_function``."""
    side = Side(name="ours", module="ours_tasks", env=LISTED)
    with run.children([side], "Django tasks", "task") as (child,):
        for row, baseline, operation, count, rounds, target in (
            ("enqueue", "schedule", "enqueue", 20, (30, 300), 1.05),
            ("enqueue_many of 100", "schedule_many", "enqueue_many", 100, (10, 100), 1.10),
            ("the run of a Django task", "run_function", "run_task", 20, (30, 300), 5.0),
        ):
            turns = [
                Turn(name=name, child=child, operation=name, count=count, warm_up=5)
                for name in (baseline, operation)
            ]
            run.compare(row, "task", turns, rounds=run.rounds(*rounds),
                        targets={operation: Target(target, "cpu")})  # fmt: skip


def table(run: Run, peers: Sequence[Peer]) -> None:
    """A table of 10,000 names beside one of ten, when one name after the other is used."""
    sides = []
    for number, kind in ((10, "functions"), (10_000, "functions"), (10_000, "classes")):
        names = " ".join(f"many{n}=benchmarks.sides.many_tasks.{kind}{n}" for n in range(number))
        file = run.directory / f"table-{kind}-{number}"
        file.write_text(names)
        env = {"BEANSTALK_DISPATCH_TABLE_FILE": str(file), "BEANSTALK_DISPATCH_TABLE": ""}
        sides.append(Side(name=f"{number:,} {kind}", module="ours", env=env))
    sides.insert(1, replace(sides[0], name="10 functions, again", note="the noise of this row"))
    with run.children(sides, "table", "message") as children:
        for each in children:  # what a process does once for each name does not belong to the row
            each.do("run_names", count=10_000)
            each.do("check_names", count=10_000)
            each.do("schedule_names", count=100)
        for row, operation in (("scheduled", "schedule_names"), ("run", "run_names")):
            turns = [Turn(name=each.side.name, child=each, operation=operation, count=20)
                     for each in children]  # fmt: skip
            run.compare(f"a large table, {row}", "message", turns,
                        rounds=run.rounds(20, 100),
                        targets={"10,000 functions": Target(1.1, "cpu")})  # fmt: skip


def start_up(run: Run, peers: Sequence[Peer]) -> None:
    """What a process has used before it sends anything, and its memory after twenty sends.

    And what the app costs a project that never sends anything.
    """
    sides = [RAW, OURS, *(peer.side() for peer in peers)]
    _start(run, "start of a process", sides, "until it could send; its memory after twenty sends")
    env = {"BEANSTALK_WORKER": "False", "BEANSTALK_DISPATCH_TABLE": ""}
    idle = [
        Side(
            name=name, module="idle_project", env=env | {"IDLE_APPS": f"django.contrib.auth {app}"}
        )
        for name, app in (("Django alone", ""), ("with the app", "beanstalk_dispatch"))
    ]
    _start(run, "start of a project that sends nothing", idle, "with the system checks")


def _start(run: Run, row: str, sides: Sequence[Side], note: str) -> None:
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for _ in range(run.rounds(2, 10)):
        for side in sides:
            started = time.perf_counter()
            with run.children([side], row, "process") as children:
                for child in children:
                    took = {"wall": time.perf_counter() - started, "cpu": child.start["cpu"]}
                    took["memory"] = child.do("one", count=20)["memory"]
                    found[side.name].append(took)
    for name, figures in found.items():
        if figures:
            line = line_of(row, name, "process", figures, found[sides[0].name], note=note)
            run.add(replace(line, memory=statistics.median(each["memory"] for each in figures)))


def together(run: Run, peers: Sequence[Peer]) -> None:
    """Fifty threads that send at a time, over one, without latency and at 5 ms to SQS."""
    with run.children([OURS], "together", "send") as children:
        turns = [
            Turn(name=name, child=each, operation=operation, count=500)
            for each in children
            for name, operation in (("one thread", "one"), ("50 threads", "fifty_threads"))
        ]
        for seconds in (0.0, LATENCY_SECONDS):
            run.control.ask("Latency", seconds=seconds)
            run.compare(
                f"sends of 50 threads{', SQS 5 ms away' * (seconds > 0)}",
                "send",
                turns,
                rounds=run.rounds(10, 50),
                targets={"50 threads": Target(0.35, "cpu")},
            )
    run.control.ask("Latency", seconds=0)


ROWS: Final[Mapping[str, Callable[[Run, Sequence[Peer]], None]]] = {
    "send": one_send, "https": over_https, "bulk": bulk, "waiting": waiting, "first": first,
    "together": together, "endpoint": endpoint, "django-tasks": django_tasks, "table": table,
    "start": start_up, "isolation": isolation, "turns": turns.turns, "drain": drain.kinds,
    "queues": drain.queues, "stop": drain.stop,
}  # fmt: skip
