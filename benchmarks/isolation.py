"""The cost of a process for each task: the same worker with and without, in turns.

    python -m benchmarks.isolation [--quick]

The floor is the CPU of a hop to another process and back, without a line of this package. What is
more than thread above it is work of the package and of Python. CPU time is that of all processes of
a worker. The last line needs a machine with two cores that nothing else uses: where others use
them, tasks in threads and in processes get the same share.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psutil

from .compare import Line, Quartiles, Run, Side, Target, duration, started
from .drain import drain_in_turns, our_worker, started_consumers
from .processes import free_port, post, running, wait_for

THREAD, PROCESS = "thread", "process"


def floor(run: Run) -> None:
    """The bytes of a task, there and back, between a bare process of 15 threads and 15 others."""
    count = run.rounds(3_000, 15_000)
    command = (sys.executable, "-m", "benchmarks.sides.hop", "15", str(count))
    figures = [json.loads(subprocess.check_output(command)) for _ in range(5)]
    wall, cpu = (statistics.median(each) / count for each in zip(*figures, strict=True))
    run.add(Line(row="a hop, bare Python", side="floor", unit="message", wall=wall, cpu=cpu))


def endpoint(run: Run) -> None:
    """A no-op over HTTP: gunicorn with 15 threads, and with as many children."""
    from beanstalk_dispatch.messages.message import Message, now

    body = Message(function="noop", args=(1, "two"), kwargs={"x": 3}, sent_at=now())
    order = {"seconds": 1.0, "request": post("beanstalk_dispatch", body.encode(queue="q"))}
    found: dict[str, list[tuple[float, float]]] = {THREAD: [], PROCESS: []}
    env = run.environment(Side(name="load", module="ours"))
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_gunicorn(run, name)) for name in found}
        load = stack.enter_context(running("benchmarks.processes", "load", env=env))
        assert load.stdin
        assert load.stdout
        for number in range(-1, run.rounds(5, 20)):  # the first warms up
            for name in found if number % 2 else reversed(found):
                port, process = servers[name]
                before = _cpu(process)
                print(json.dumps(order | {"port": port}), file=load.stdin, flush=True)
                answers, seconds = json.loads(load.stdout.readline())
                if number >= 0:
                    cpu = (_cpu(process) - before) / answers
                    found[name].append((seconds / answers, cpu))
    for name, figures in found.items():
        pairs = list(zip(figures, found[THREAD], strict=True))
        run.add(Line(
            row="gunicorn, no-op", side=name, unit="message",
            wall=statistics.median(wall for wall, _ in figures),
            cpu=statistics.median(cpu for _, cpu in figures),
            wall_ratio=Quartiles.of([mine[0] / theirs[0] for mine, theirs in pairs]),
            cpu_ratio=Quartiles.of([mine[1] / theirs[1] for mine, theirs in pairs]),
            target=Target(1.2, "cpu") if name == PROCESS else None,
            note="" if name == THREAD else f"{duration(_more(pairs))} more than thread",
        ))  # fmt: skip


def _more(pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> float:
    """CPU seconds that a message takes more."""
    return statistics.median(mine[1] - theirs[1] for mine, theirs in pairs)


@contextmanager
def _gunicorn(run: Run, isolation: str) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    env = run.environment(Side(name=isolation, module="ours"))
    env["BEANSTALK_DISPATCH_ISOLATION"] = isolation
    command = ("gunicorn", "django.core.wsgi:get_wsgi_application()", "--workers=1",
               "--threads=15", f"--bind=127.0.0.1:{port}", "--log-level=warning")  # fmt: skip
    with running(*command, env=env) as process:
        wait_for(port)
        yield port, psutil.Process(process.pid)


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and of those that it has started."""
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


def poller(run: Run) -> None:
    """A no-op in the worker, and tasks that compute on two cores; each with ten threads."""
    consumers = [
        our_worker(name, [f"isolation-{name}"], isolation=name) for name in (THREAD, PROCESS)
    ]
    with started_consumers(run, consumers, "poller") as consuming:
        for task, counts, target in (
            ("noop", (2_000, 10_000), Target(1.5, "cpu")),
            ("cpu20", (400, 400), Target(0.6)),
        ):
            drain_in_turns(
                run, f"poller, {task}", consuming, task=task, count=run.rounds(*counts),
                rounds=run.rounds(3, 9), targets={PROCESS: target},
            )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args(arguments)
    with started(is_quick=options.quick) as run:
        floor(run)
        endpoint(run)
        poller(run)
    return 1 if any(line.is_met is False for line in run.lines) else 0


if __name__ == "__main__":
    raise SystemExit(main())
