"""Rows of consumers: each drains a queue that was filled while nothing was handed out.

A consumer is started, and idles until its turn. Its queue is held and filled, then released. What
counts is the time from the release to the last delete, as the server has seen it, and the CPU of
all of the consumer's processes.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from .compare import Child, Failed, Line, Run, Side, Target, line_of
from .peers import Peer

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_START_SECONDS: Final = 20.0
_DRAIN_SECONDS: Final = 60.0

_STOP_SECONDS: Final = 30.0

AWAY_SECONDS: Final = 0.010
KINDS: Final = (("no-op", "noop", 1_000, 10_000), ("5 ms of CPU", "cpu5", 200, 1_000),
                ("50 ms of sleep", "sleep50", 200, 1_000))  # fmt: skip
"""A row, its task, and the number of tasks of a turn: quick and in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A consumer: its command, and the side that fills its queues."""

    name: str
    producer: Side
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    queues: Sequence[str] = ()
    note: str = ""

    @property
    def queue_names(self) -> Sequence[str]:
        return self.queues or [self.producer.queue_name]


def _by_hand(threads: int) -> Consumer:
    name = f"by hand, {threads} thread{'s' * (threads > 1)}"
    queue = f"hand-{threads}"
    return Consumer(
        name=name, producer=Side(name=name, module="raw", queue=queue),
        command=(sys.executable, "-m", "benchmarks.sides.hand_loop", str(threads)),
    )  # fmt: skip


def our_worker(name: str, queues: Sequence[str], *, isolation: str = "thread") -> Consumer:
    """Ten threads, whose tasks run in them or in processes of their own."""
    producer = Side(name=name, module="ours", queue=queues[0])
    command = (sys.executable, "-m", "django", "beanstalk_worker", *queues, "--threads=10")
    env = {"BEANSTALK_DISPATCH_ISOLATION": isolation}
    return Consumer(name=name, producer=producer, command=command, queues=queues, env=env)


def _peer(peer: Peer) -> list[Consumer]:
    """The worker of a peer, and its variants. One that has no worker has no consumers."""
    commands = {peer.name: peer.worker} if peer.worker else {}
    commands |= {f"{peer.name}, {options}": each for options, each in peer.variants.items()}
    return [
        Consumer(
            name=name, command=(str(peer.folder / "bin" / executable), *arguments), env=peer.env,
            producer=replace(peer.side(), name=name, queue=f"{peer.module}-{number}"),
            note=peer.note,
        )
        for number, (name, (executable, *arguments)) in enumerate(commands.items())
    ]  # fmt: skip


class Consuming:
    """A consumer that runs, and the process that fills its queues."""

    def __init__(self, consumer: Consumer, child: Child, run: Run) -> None:
        self.consumer, self._child, self._run = consumer, child, run
        environment = run.environment(consumer.producer) | dict(consumer.env)
        # A worker of a peer imports the benchmarks from its own directory.
        environment["PYTHONPATH"] = str(run.directory_of(consumer.producer))
        self._errors = run.directory / f"{consumer.queue_names[0]}-consumer.log"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                consumer.command, env=environment, cwd=run.directory_of(consumer.producer),
                stdout=errors, stderr=errors, start_new_session=True,
            )  # fmt: skip

    def stop(self, *, after: int) -> float:
        """Send SIGTERM once ``after`` tasks are deleted. Returns the seconds until it has ended."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.state()["deleted"] < after:
            if time.monotonic() > deadline:
                raise Failed(f"fewer than {after} tasks in {_DRAIN_SECONDS:g} s")
            time.sleep(0.005)
        asked = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"has not stopped in {_STOP_SECONDS:g} s") from None
        return time.monotonic() - asked

    def close(self) -> None:
        """End the consumer and the processes that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def requests(self) -> int:
        """The requests to its queues so far."""
        count: int = self.state()["requests"]
        return count

    def cpu(self) -> float:
        """CPU seconds of the processes of the consumer's session, with those that have ended."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[3]) == self._process.pid:
                ticks += sum(map(int, fields[11:15]))
        return ticks * _TICK

    def state(self) -> dict[str, Any]:
        return self._run.control.ask("State", names=list(self.consumer.queue_names))

    def wait_until_idle(self) -> None:
        """Wait until it polls a queue, and no longer uses CPU for its start."""
        deadline = time.monotonic() + _START_SECONDS
        self._run.control.ask("Hold", names=list(self.consumer.queue_names))
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Failed(f"its worker has ended: {self._last_error()}")
            if self.state()["waiting"]:
                return
            time.sleep(0.05)

    def _last_error(self) -> str:
        return (self._errors.read_text().strip().splitlines() or ["without an error"])[-1]

    def fill(self, task: str, count: int) -> int:
        """Hold its queues, and send the same number of tasks to each. Returns that number."""
        names = self.consumer.queue_names
        self._run.control.ask("Hold", names=list(names))
        share = count // len(names)
        for name in names:
            queue = {"queue": name} if len(names) > 1 else {}
            self._child.do("many", count=share, task=task, **queue)
        return share

    def release(self) -> float:
        """Let its queues hand their messages out. Returns when that was."""
        at: float = self._run.control.ask("Release", names=list(self.consumer.queue_names))["at"]
        return at

    def drain(self, task: str, count: int) -> dict[str, float]:
        """Fill its queues with ``count`` tasks, and measure how it drains them."""
        names = self.consumer.queue_names
        if self._process.poll() is not None:
            raise Failed(f"its worker has ended: {self._last_error()}")
        share = self.fill(task, count)
        asked = self.requests()
        cpu, released = self.cpu(), self.release()
        deadline = time.monotonic() + _DRAIN_SECONDS
        total = share * len(names)
        while (state := self.state())["deleted"] < total and time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Failed(f"its worker has ended: {self._last_error()}")
            time.sleep(0.005)
        if not (done := state["deleted"]):
            raise Failed(f"0 of {total} tasks in {_DRAIN_SECONDS:g} s")
        figures = {
            "wall": state["last_delete"] - released, "cpu": self.cpu() - cpu,
            "requests": state["requests"] - asked,
        }  # fmt: skip
        return {name: figure / done for name, figure in figures.items()} | {"done": done / total}


@contextmanager
def started_consumers(
    run: Run, consumers: Sequence[Consumer], row: str
) -> Iterator[list[Consuming]]:
    with ExitStack() as stack:
        children = stack.enter_context(
            run.children([each.producer for each in consumers], row, "task")
        )
        by_side = {child.side.name: child for child in children}
        started = []
        for consumer in consumers:
            if child := by_side.get(consumer.producer.name):
                consuming = Consuming(consumer, child, run)
                stack.callback(consuming.close)
                started.append(consuming)
        ready = []
        for consuming in started:
            try:
                consuming.wait_until_idle()
            except Failed as exc:
                run.add(Line(row=row, side=consuming.consumer.name, unit="task", note=str(exc)))
            else:
                ready.append(consuming)
        time.sleep(1)  # what a process does just after its start is not part of its turn
        yield ready


def drain_in_turns(
    run: Run, row: str, running: Sequence[Consuming], *,
    task: str, count: int, rounds: int, targets: Mapping[str, Target],
) -> None:  # fmt: skip
    """Let the consumers take turns, and add a line for each. The first is the baseline.

    One that fails or whose time is up takes no further turn in this row. It is kept alive for the
    rows that follow.
    """
    figures: dict[str, list[dict[str, float]]] = {each.consumer.name: [] for each in running}
    notes: dict[str, str] = {}
    for number in range(rounds):
        for each in running if number % 2 else running[::-1]:
            name = each.consumer.name
            if name in notes:
                continue
            try:
                found = each.drain(task, count)
            except Failed as exc:
                notes[name] = str(exc)
                continue
            figures[name].append(found)
            if found["done"] < 1:
                notes[name] = f"{found['done'] * count:.0f} of {count} tasks in the time of the row"
    for each in running:
        name = each.consumer.name
        run.add(line_of(
            row, name, "task", figures[name], figures[running[0].consumer.name],
            target=targets.get(name), note=notes.get(name, each.consumer.note),
        ))  # fmt: skip


def kinds(run: Run, peers: Sequence[Peer]) -> None:
    """A drain of tasks that do nothing, that use CPU, and that wait; each with ten threads."""
    ours = our_worker("beanstalk_worker", ["ours"])
    isolated = our_worker(
        "beanstalk_worker, isolation process", ["ours-process"], isolation="process"
    )
    consumers = [_by_hand(1), _by_hand(4), _by_hand(10), ours, isolated]
    consumers += [consumer for peer in peers for consumer in _peer(peer)]
    for peer in peers:
        if not peer.worker:
            run.add(Line(row="drain", side=peer.name, unit="task", note=peer.no_worker))
    with started_consumers(run, consumers, "drain") as running:
        _idle(run, running)
        for name, task, quick, full in KINDS:
            drain_in_turns(
                run, f"drain, {name}", running, task=task, count=run.rounds(quick, full),
                rounds=run.rounds(2, 5),
                targets={ours.name: Target(2.0, "cpu")} if task == "noop" else {},
            )  # fmt: skip
        run.control.ask("Latency", seconds=AWAY_SECONDS)
        for name, task, quick, full in KINDS:
            drain_in_turns(
                run, f"drain, {name}, SQS 10 ms away", running, task=task,
                count=run.rounds(quick // 4, full // 4), rounds=run.rounds(2, 5), targets={},
            )  # fmt: skip
        run.control.ask("Latency", seconds=0)


def stop(run: Run, peers: Sequence[Peer]) -> None:
    """A SIGTERM in the middle of a drain: how long the worker takes, and what it leaves behind."""
    consumers = [_by_hand(10), our_worker("beanstalk_worker", ["ours-stopped"])]
    consumers += [consumer for peer in peers for consumer in _peer(peer)]
    for consumer in consumers:
        seconds: list[float] = []
        hidden = again = 0
        note = ""
        for _ in range(run.rounds(2, 5)):
            try:
                found = _stop_once(run, consumer)
            except Failed as exc:
                note = str(exc)
                break
            if found is None:
                break
            seconds.append(found.seconds)
            hidden += found.hidden
            again += found.done_again
        if seconds and not note:
            note = f"per stop: {hidden / len(seconds):g} messages stay hidden, "
            note += f"{again / len(seconds):g} finished tasks run again"
        run.add(Line(
            row="stop under load", side=consumer.name, unit="stop", note=note,
            wall=statistics.median(seconds) if seconds else None,
        ))  # fmt: skip


class Stopped(NamedTuple):
    """What one stop took, and what it left behind."""

    seconds: float
    hidden: int
    """Messages that were received, and are not visible before their visibility timeout."""
    done_again: int
    """Tasks that have run, and whose messages were not deleted."""


def _stop_once(run: Run, consumer: Consumer) -> Stopped | None:
    """Stop a consumer of its own. None if it or its producer could not start."""
    runs = run.directory / f"{consumer.queue_names[0]}-runs"
    runs.write_bytes(b"")
    counted = replace(consumer, env={**consumer.env, "BENCHMARK_RUNS": str(runs)})
    with started_consumers(run, [counted], "stop under load") as running:
        for each in running:
            each.fill("counted50", 600)
            already = each.state()["in_flight"]
            each.release()
            seconds = each.stop(after=200)
            state = each.state()
            return Stopped(seconds, state["in_flight"] - already,
                           len(runs.read_bytes()) - state["deleted"])  # fmt: skip
    return None


def _idle(run: Run, running: Sequence[Consuming]) -> None:
    """What each consumer asks of an empty queue, and the CPU that it uses meanwhile."""
    seconds = run.rounds(20, 60)
    before = [(each.requests(), each.cpu()) for each in running]
    time.sleep(seconds)
    for each, (requests, cpu) in zip(running, before, strict=True):
        run.add(Line(
            row="an empty queue", side=each.consumer.name, unit="second",
            cpu=(each.cpu() - cpu) / seconds, requests=(each.requests() - requests) / seconds,
        ))  # fmt: skip


class OneLoop(NamedTuple):
    """The worker beside a loop by hand in one thread."""

    cpu_ratio: float
    requests: float
    """For each task, to receive and delete it."""
    idle_requests: float
    """In ten seconds without a message."""


def against_one_loop(run: Run, *, tasks: int, rounds: int) -> OneLoop:
    """What the gate asks of the worker."""
    ours = our_worker("beanstalk_worker", ["ours"])
    with started_consumers(run, [_by_hand(1), ours], "worker") as running:
        drain_in_turns(run, "worker", running, task="noop", count=tasks, rounds=rounds, targets={})
    line = run.lines[-1]
    if line.cpu_ratio is None or line.requests is None:
        raise RuntimeError(f"the worker has not drained its queue: {line.note}")
    with started_consumers(run, [ours], "worker"):
        run.control.ask("Counts")
        time.sleep(10)
        idle = run.control.ask("Counts")["requests"]
    return OneLoop(line.cpu_ratio.median, line.requests, sum(idle.values()))


def isolation(run: Run) -> None:
    """A no-op in the worker, and tasks that compute on two cores; each with ten threads."""
    consumers = [our_worker(name, [f"in-{name}"], isolation=name) for name in ("thread", "process")]
    with started_consumers(run, consumers, "isolation") as running:
        for row, task, count, target in (
            ("no-op", "noop", run.rounds(2_000, 10_000), Target(1.5, "cpu")),
            ("20 ms of CPU", "cpu20", 400, Target(0.6)),
        ):
            drain_in_turns(
                run, f"isolation, worker, {row}", running, task=task, count=count,
                rounds=run.rounds(3, 9), targets={"process": target},
            )  # fmt: skip


def queues(run: Run, peers: Sequence[Peer]) -> None:
    """The same number of tasks in one queue, in twenty and in fifty, with one worker each."""
    consumers = [
        our_worker(
            f"{number} queue{'s' * (number > 1)}", [f"of{number}-{n}" for n in range(number)]
        )
        for number in (1, 20, 50)
    ]
    with started_consumers(run, consumers, "queues") as running:
        drain_in_turns(
            run, "queues, no-op", running, task="noop", count=run.rounds(2_000, 10_000),
            rounds=run.rounds(3, 9), targets={"20 queues": Target(1.3, "cpu")},
        )  # fmt: skip
