"""The scenes: one kind of culprit each, beside tasks that have done nothing wrong."""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil

from beanstalk_dispatch.isolation.server_process import MODULE
from tests.proxy import Proxy, error

from .hostile import CULPRITS
from .machine import TABLE, THREADS, Consumer, Figures, Machine, Servers, answers, endpoint, poller

Calls = Sequence[tuple[str, Sequence[Any]]]
DRIVERS: Final = ("psycopg", "psycopg2", "pymysql")
SQS_SERVERS: Final = ("ministack", "fauxqs")
"""Of one message group, ministack gives ten messages to a receive, and fauxqs one."""
CONSUMERS: Final[Mapping[str, Consumer]] = {"endpoint": endpoint, "poller": poller}
BLAMELESS: Final = 300
_LATE: Final = TABLE.replace("containment.tasks.Blameless", "containment.late.Blameless")
_MIB: Final = 2**20


def culprits(count: int, *names: str) -> Calls:
    """``count`` calls of each task."""
    return [(name, []) for _ in range(count) for name in names]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is scheduled, and on what."""

    culprits: Calls
    isolations: Sequence[str] = ("thread", "process")
    consumers: Mapping[str, Consumer] = field(default_factory=lambda: CONSUMERS)
    no_meaning: Mapping[str, str] = field(default_factory=dict)
    """Isolation or consumer → why the scene is not played with it."""
    drivers: Sequence[str] = DRIVERS[:1]
    sqs_servers: Sequence[str] = SQS_SERVERS[:1]
    blameless: int = BLAMELESS
    seconds: Sequence[float] = (0.05,)
    """What the blameless tasks take, in turn."""
    visibility: int = 30
    max_receives: int = 3
    fifo: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = 1
    """How culprits and blameless tasks are mixed; None puts the culprits first."""
    may_fail: int = 0
    """How many deliveries of blameless tasks may fail. ``reason`` says why."""
    may_repeat: int = 0
    """How many blameless tasks may be done twice."""
    reason: str = ""
    """Why a blameless task may fail, repeat or begin again."""
    during: Callable[[Machine], AbstractContextManager[list[str]]] | None = None
    """What happens meanwhile. It yields notes about that."""
    patience: float = 150
    """Seconds for all blameless tasks to be done."""
    must_not: Sequence[str] = ()
    """What no culprit may have become, such as ``begin done``."""
    must_log: Sequence[str] = ()
    """How the log must name a culprit, where its outcome does not say what it has done."""
    must_log_of_child: Sequence[str] = ()
    """The same, where tasks have processes of their own. Only there nothing may fail or repeat."""
    cut: int = 0
    """The culprits that their own processes do not survive, each of them three times."""

    def play(self, name: str, servers: Servers, folder: Path, consumer: Consumer, driver: str,
             *, isolation: str = "thread", share: float = 1.0) -> Figures:  # fmt: skip
        """Run the scene once. ``share`` of its tasks take part."""
        machine = Machine(
            name, servers, folder, driver=driver, isolation=isolation, visibility=self.visibility,
            max_receives=self.max_receives, fifo=self.fifo, variables=self.variables,
        )  # fmt: skip
        kept = self.culprits[: max(int(len(self.culprits) * share), min(len(self.culprits), 1))]
        machine.send(
            kept, blameless=int(self.blameless * share), seconds=self.seconds, seed=self.seed
        )
        with ExitStack() as stack:
            notes = stack.enter_context(self.during(machine)) if self.during else []
            stack.enter_context(consumer(machine))
            machine.wait(self.patience)
        figures = machine.figures()
        figures.notes.extend(notes)
        if figures.lost and (unsettled := machine.unsettled()):
            figures.notes.append(f"{unsettled} messages still in the queue: more time is needed")
        figures.notes.extend(
            f"NOT EXPECTED: {each}" for each in self.must_not if figures.culprits[each]
        )
        log = machine.log()
        is_thread = isolation == "thread"
        figures.notes.extend(
            f"NOT EXPECTED: no line {each!r}"
            for each in (self.must_log if is_thread else self.must_log_of_child)
            if each not in log
        )
        cuts = sum(n for each, n in figures.culprits.items() if each.endswith(" cut"))
        if self.cut and not is_thread and cuts != 3 * self.cut:
            figures.notes.append(f"NOT EXPECTED: {cuts} ends of culprits, not {3 * self.cut}")
        return figures

    def is_well(self, figures: Figures, isolation: str = "thread") -> bool:
        """Whether nothing happened to a blameless task that has no reason."""
        harmed = figures.harmed
        if isolation == "thread" or self.during:
            harmed -= min(figures.failed, self.may_fail)
            harmed -= min(figures.done_twice, self.may_repeat)
        elif self.cut:
            harmed += figures.restarted
        return not harmed and not any(each.startswith("NOT EXPECTED") for each in figures.notes)


# --- what happens meanwhile ------------------------------------------------------------------


@contextmanager
def drained(machine: Machine, *, seconds: float = 60) -> Iterator[list[str]]:
    """Keep the drain file there for the first ``seconds``."""
    file = machine.folder / "drain"
    file.touch()
    machine.variables["BEANSTALK_DISPATCH_DRAIN_FILE"] = str(file)
    timer = threading.Timer(seconds, file.unlink)
    timer.start()
    yield []
    timer.cancel()


@contextmanager
def broken_deployment(machine: Machine) -> Iterator[list[str]]:
    """Have the module of the blameless tasks fail to import at first.

    For BROKEN_SECONDS, 60 by default. A real deployment takes 15 minutes to correct.
    """
    file = machine.folder / "corrected"
    machine.variables["CORRECTED"] = str(file)
    machine.variables["BEANSTALK_DISPATCH_TABLE"] = _LATE
    timer = threading.Timer(float(os.environ.get("BROKEN_SECONDS", "60")), file.touch)
    timer.start()
    yield []
    timer.cancel()


class _Meanwhile:
    """A thread that works on a machine until its scene is over."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._notes: list[str] = []
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> list[str]:
        self._thread.start()
        return self._notes

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        self._thread.join()


class NetworkCut(_Meanwhile):
    """Once a third of the tasks has run, no request reaches SQS for ``seconds``."""

    def __init__(self, machine: Machine, seconds: float = 30) -> None:
        super().__init__()
        self._machine = machine
        self._seconds = seconds
        self._is_connected = threading.Event()
        self._is_connected.set()
        self._proxy = Proxy(machine.servers.sqs)
        self._proxy.spoil = self._hang
        machine.variables["BEANSTALK_DISPATCH_SQS_ENDPOINT_URL"] = self._proxy.url

    def _hang(self, operation: str, request: dict[str, Any]) -> Any:
        if self._is_connected.is_set():
            return None
        self._is_connected.wait()
        return error(500, "InternalFailure")

    def _work(self) -> None:
        while len(self._machine.rows("work")) < self._machine.blameless / 3:
            if self._is_over.wait(0.1):
                return
        self._is_connected.clear()
        self._is_over.wait(self._seconds)
        self._is_connected.set()

    def __enter__(self) -> list[str]:
        self._proxy.__enter__()
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._proxy.__exit__(None, None, None)


class HalfOpenConnections(_Meanwhile):
    """Open connections to the health port that say nothing, until the end of the scene."""

    def __init__(self, machine: Machine, count: int = 1020) -> None:
        super().__init__()
        self._port = machine.health_port
        self._count = count

    def _work(self) -> None:
        while not answers(self._port):
            if self._is_over.wait(0.1):
                return
        with ExitStack() as stack:
            for _ in range(self._count):
                connection = stack.enter_context(socket.socket())
                connection.settimeout(1)
                connection.connect_ex(("127.0.0.1", self._port))
            problem = "" if answers(self._port) else "NOT EXPECTED: the probe gets no answer; "
            self._notes.append(f"{problem}{self._count} connections")
            self._is_over.wait()

    def __enter__(self) -> list[str]:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        return super().__enter__()


class Kills(_Meanwhile):
    """End processes of the consumer with SIGKILL, at random moments of ``seconds`` seconds."""

    def __init__(self, machine: Machine, seconds: float = 60) -> None:
        super().__init__()
        self._seconds = seconds

    def _work(self) -> None:
        kills, until = 0, time.monotonic() + self._seconds
        while not self._is_over.wait(random.uniform(3, 9)) and time.monotonic() < until:
            found = [
                each for each in psutil.Process().children(recursive=True) if _is_consumer(each)
            ]
            if found and not _server_imports(found):
                random.choice(found).kill()
                kills += 1
        self._notes.append(f"{kills} kills")


def _server_imports(processes: Sequence[psutil.Process]) -> bool:
    """Whether there is a server of isolation, and no child yet.

    On a busy machine it would be killed again and again, and no task would ever run.
    """
    with suppress(psutil.Error):
        return sum(MODULE in each.cmdline() for each in processes) == 1
    return False


def _is_consumer(process: psutil.Process) -> bool:
    """Whether this is gunicorn's worker, the poller, the server of isolation, or a child of it."""
    with suppress(psutil.Error):
        if not {"beanstalk_worker", MODULE}.isdisjoint(process.cmdline()):
            return True
        parent = process.parent()
        return "gunicorn" in process.cmdline() and parent is not None and (
            "gunicorn" in parent.cmdline()
        )  # fmt: skip
    return False


class SilentCache(_Meanwhile):
    """Once a third of the tasks has run, the cache answers nothing for ``seconds``."""

    def __init__(self, machine: Machine, seconds: float = 6) -> None:
        super().__init__()
        self._machine = machine
        self._seconds = seconds

    def _work(self) -> None:
        port = str(self._machine.servers.valkey)
        (server,) = (
            each
            for each in psutil.Process().children(recursive=True)
            if f":{port}" in " ".join(each.cmdline())  # Valkey writes its title there
        )
        while len(self._machine.rows("work")) < self._machine.blameless / 3:
            if self._is_over.wait(0.1):
                return
        server.suspend()
        self._is_over.wait(self._seconds)
        server.resume()
        self._notes.append(f"silent for {self._seconds:g} s")


# --- the scenes ------------------------------------------------------------------------------

_POLLER: Final = {"poller": poller}
_HOSTILE: Final = {
    "process-state": ("disable-logging", "disable-loggers"),
    "log-handlers": ("raising-handler", "raising-filter", "raising-record-factory"),
}  # fmt: skip
_CONTAINED: Final = (
    "autocommit-off", "cancel-backends", "circular-error", "hold-thread-lock",
    "huge-message", "interrupt-main", "join-all-threads", "lying-error", "raising-gc-callback",
    "reap-all", "replace-close", "slow-del", "spoil-connection", "unspeakable-error", "zombies",
)  # fmt: skip
"""More hostile tasks that touch no other task."""
_OWN_DEAD_LETTERS: Final = {"BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE": "dead"}
_LEASE: Final = {"BEANSTALK_DISPATCH_LEASE_CACHE": "default"}
_BOTH: Final[Mapping[str, Consumer]] = {
    "endpoint": partial(endpoint, error_visibility=2),
    **_POLLER,
}
_ITS_PROCESS: Final = (
    "the process ends, and with it what runs there; those tasks begin again, and without a lease "
    "those that were done and not yet deleted, too; the culprit is a dead letter after the third "
    "time"
)

_LONG: Final[dict[str, Any]] = {
    "consumers": _BOTH, "seconds": (0.1, 20.0, 45.0), "blameless": 45,
    "max_receives": 10, "visibility": 20, "patience": 300,
    "variables": _OWN_DEAD_LETTERS | {"FILE_LIMIT": "1024"},
}  # fmt: skip
_UNCONTAINED: Final = "The scenes without `beside-` say how far threads contain it."
_CUT_REASON: Final = "child ended id=culprit-0 function="


def _beside_long_tasks(*names: str, isolation: str = "process", **facts: Any) -> Scene:
    """Culprits beside tasks of up to 45 s, where each task has a process of its own."""
    calls = [("hostile", [name]) if name in CULPRITS else (name, []) for name in names]
    return Scene(
        culprits=calls, isolations=[isolation], no_meaning={"thread": _UNCONTAINED},
        **(_LONG | facts),
    )  # fmt: skip


_BESIDE: Final = {
    "exit": _beside_long_tasks("exit", cut=1, must_log_of_child=[_CUT_REASON]),
    "segfault": _beside_long_tasks("segfault", cut=1, must_log_of_child=[_CUT_REASON]),
    "interpreter-lock": _beside_long_tasks(
        "gil", cut=1, must_log_of_child=[_CUT_REASON, "could not be interrupted"],
        variables=_LONG["variables"] | {"BEANSTALK_DISPATCH_TASK_TIMEOUT": "10s"},
    ),
    "memory": _beside_long_tasks(
        "memory", cut=1, must_log_of_child=[_CUT_REASON, " of memory, more than the 300 MiB"],
        variables=_LONG["variables"] | {"BEANSTALK_DISPATCH_CHILD_MEMORY": "300M"},
    ),
    "closed-files": _beside_long_tasks("close-files", cut=1, must_log_of_child=[_CUT_REASON]),
    "closed-sockets": _beside_long_tasks("close-sockets", cut=1, must_log_of_child=[_CUT_REASON]),
    "left-behind": _beside_long_tasks(
        *("exhaust-files", "leave-threads", "leave-loop", "alarm", "itimer", "block-signals",
          "many-threads", "endless-threads") * 2,
        must_log_of_child=[
            "open files", "it has left threads: ", "it has left an event loop",
            "it has left a timer running",
        ],
    ),
    "attributes": _beside_long_tasks(
        *("change-environment", "chdir", "clear-path", "patch-builtins", "patch-json",
          "patch-sleep-raises", "patch-socket", "patch-thread", "clear-modules") * 2,
        isolation="fresh",
    ),
}  # fmt: skip

SCENES: Final[dict[str, Scene]] = {
    "limit-in-commit": Scene(
        culprits=culprits(60, "limit-in-commit"), drivers=DRIVERS,
        must_not=["limit-in-commit done"],
    ),
    "open-transaction": Scene(
        culprits=culprits(15, "begin", "enter-atomic"), drivers=DRIVERS,
        must_not=["begin done", "enter-atomic done"],
    ),
    "base-exception": Scene(
        culprits=culprits(8, "panic", "generator-exit", "keyboard-interrupt", "system-exit")
    ),
    "swallowed-limit": Scene(
        culprits=[*culprits(20, "swallows"), *culprits(3, "endless")],
        must_not=["swallows done", "endless done"],
    ),
    "stuck": Scene(
        culprits=culprits(THREADS, "stuck-once"), seed=None, seconds=(0.1, 20, 45), blameless=45,
        consumers=_BOTH, visibility=120, max_receives=10, patience=300,
        must_log=["stuck task label=stuck-once id=culprit-"],
    ),
    "outside-of-run": Scene(
        culprits=culprits(5, "hangs-in-init", "hangs-in-str", "hangs-in-backoff"), seed=None,
        consumers=_BOTH, seconds=(0.1, 20), blameless=60, visibility=120,
        patience=300, variables={"BEANSTALK_DISPATCH_TASK_TIMEOUT": "3s"},
        must_log=["failed outside of its run() id=culprit-", "retry options are wrong id=culprit-"],
    ),
    "left-threads": Scene(
        culprits=culprits(7, "leave-threads"), consumers=_BOTH,
        max_receives=10, seconds=(0.1, 2), must_log=["threads left behind id=culprit-",
        "reason=threads"],
    ),
    "log-locks": Scene(
        culprits=culprits(15, "log-locks"), must_log=["log lock left locked id=culprit-"]
    ),
    "activate": Scene(culprits=culprits(30, "activate")),
    "process-state": Scene(
        culprits=[("hostile", [name]) for name in _HOSTILE["process-state"] * 5],
        must_log=["process state restored id=culprit-"],
    ),
    "timers": Scene(
        culprits=[("hostile", [name]) for name in ("alarm", "itimer") * 3],
        seconds=(*(0.05,) * 9, 3.0), max_receives=10, may_repeat=3 * THREADS,
        reason="under gunicorn the signal ends the process, and what runs there begins again",
    ),
    "log-handlers": Scene(
        culprits=[("hostile", [name]) for name in _HOSTILE["log-handlers"] * 5],
        must_log=["log line not written"],
    ),
    "time": Scene(
        culprits=[*culprits(2, "patch-time"), *culprits(10, "swallows")], visibility=5,
        seconds=(*(0.05,) * 9, 8.0), must_not=["swallows done"],
    ),
    "fork-bomb": Scene(
        culprits=culprits(10, "fork-ten"), must_log=["forked process left its task id=culprit-"]
    ),
    "pool": Scene(
        culprits=culprits(60, "limit-in-commit"), variables={"POOL_SIZE": "4"},
        must_not=["limit-in-commit done"],
    ),
    "files": Scene(
        culprits=[("hostile", ["exhaust-files"])],
        variables={"FILE_LIMIT": "1024", **_OWN_DEAD_LETTERS},
        visibility=5, max_receives=10, may_fail=3 * THREADS,
        reason="the tasks that run when no file is left fail, and are delivered again; no other "
        "task begins, and the process is replaced; then the culprit has a process of its own",
        must_log=["Too many open files"],  # at which gunicorn may end its worker before us
    ),
    "memory": Scene(
        culprits=culprits(5, "memory"), variables={"MEMORY_LIMIT": str(2048 * _MIB)},
        may_fail=BLAMELESS,
        reason="all threads of a process share its memory; a task that asks for some while the "
        "culprit has it all fails, and is delivered again",
    ),
    "exit": Scene(
        culprits=culprits(1, "exit"), visibility=5, max_receives=10, variables=_OWN_DEAD_LETTERS,
        may_repeat=3 * THREADS, reason=_ITS_PROCESS, must_log=["\ncut id=culprit-0 function="],
    ),
    "segfault": Scene(
        culprits=[("hostile", ["segfault"])], visibility=5, max_receives=10, blameless=100,
        variables=_OWN_DEAD_LETTERS, may_repeat=3 * THREADS, reason=_ITS_PROCESS,
        must_log=["\ncut id=culprit-0 function="],
    ),
    "interrupt-main": Scene(
        culprits=[("hostile", ["interrupt-main"])] * 3, blameless=100, visibility=5,
        seconds=(*(0.05,) * 9, 5.0), max_receives=10,
    ),
    "interpreter-lock": Scene(
        consumers={"endpoint": partial(endpoint, timeout=5), "poller": poller},
        culprits=culprits(1, "gil"), visibility=5, max_receives=10, variables=_OWN_DEAD_LETTERS,
        may_repeat=3 * THREADS, reason=_ITS_PROCESS, must_log=["\ncut id=culprit-0 function="],
    ),
    **{f"beside-{name}": scene for name, scene in _BESIDE.items()},
    "fifo-poison": Scene(
        culprits=culprits(1, "fail"), fifo=True, seed=None, blameless=30, visibility=10,
        sqs_servers=SQS_SERVERS,
    ),
    "mixed-burst": Scene(
        culprits=[], seconds=(*(0.001,) * 8, 7.0), blameless=348,
    ),
    "proxy-timeout": Scene(
        culprits=[], seconds=(*(0.05,) * 4, 4.0), blameless=150, max_receives=10,
        consumers={"endpoint": partial(endpoint, connections=50, read_timeout="3s")},
        no_meaning={"poller": "No proxy is before the poller."},
    ),
    **{
        f"heartbeats-{seconds}": Scene(
            culprits=[("compute", [3.0 * seconds])] * 20, consumers=_POLLER, visibility=seconds,
            seed=None, seconds=(1.0,),
            no_meaning={"endpoint": "The daemon keeps the receipt handle, so nobody can extend."},
        )
        for seconds in (5, 10)
    },
    "network-cut": Scene(
        culprits=[], seconds=(2.0,), blameless=75, visibility=10, max_receives=10,
        during=NetworkCut,
    ),
    "kills": Scene(
        culprits=[
            *culprits(
                2, "limit-in-commit", "begin", "enter-atomic", "panic", "generator-exit",
                "keyboard-interrupt", "system-exit", "swallows", "log-locks", "activate", "fail",
                "fork-ten",
            ),
            *(
                ("hostile", [name])
                for name in (*_HOSTILE["process-state"], *_HOSTILE["log-handlers"], *_CONTAINED)
                for _ in range(2)
            ),
        ],
        blameless=1_000, visibility=10, max_receives=20, during=Kills, patience=400,
        variables=_OWN_DEAD_LETTERS | _LEASE,
        may_repeat=THREADS, may_fail=10 * THREADS,
        reason="processes are killed, some of them in the milliseconds between the commit of a "
        "task and the entry in the cache that says that it is done; with a server of isolation "
        "all its children end, and each of those deliveries has failed; what a culprit changes "
        "for its whole process is restored when it ends, and not before",
    ),
    **{
        f"drained-{connections}": Scene(
            culprits=[], max_receives=10, during=drained,
            consumers={
                "endpoint": partial(endpoint, connections=connections, error_visibility=2),
                **further,
            },
        )
        for connections, further in ((15, _POLLER), (50, {}))
    },
    "silent-cache": Scene(
        culprits=[], blameless=150, seconds=(0.1, 0.1, 2.0), max_receives=10, may_fail=75,
        consumers=_BOTH, variables=_LEASE | {"CACHE_TIMEOUT": "1"}, during=SilentCache,
        reason="without an answer nothing runs, and a task that needs the cache itself fails",
    ),
    "orphans": Scene(
        culprits=[], blameless=45, seconds=(0.1, 20.0, 45.0), max_receives=10,
        during=partial(Kills, seconds=30), patience=500, consumers=_BOTH,
        variables=_LEASE | {"BEANSTALK_DISPATCH_CRASH_LEDGER": "off", "OTHER_MACHINES": "yes"},
        may_fail=3 * THREADS,
        reason="with a server of isolation all its children end, and those deliveries fail",
    ),
    "kills-and-exit": Scene(
        culprits=culprits(1, "exit"), blameless=200, seconds=(0.1, 1.0), max_receives=10,
        during=partial(Kills, seconds=45), patience=300, consumers=_BOTH,
        # Without a dead-letter queue of its own: a task that was killed three times would be taken
        # for the reason, and it was none.
        variables=_LEASE, may_repeat=THREADS, may_fail=3 * THREADS,
        reason="as in kills: between the commit of a task and its entry in the cache; and the "
        "delivery of a child that was killed has failed",
    ),
    "broken-deployment": Scene(
        culprits=[("nap", [0.1])] * 15, blameless=1_000, seconds=(0.001,), max_receives=10,
        during=broken_deployment, may_fail=30, patience=2_000,
        reason="a delivery that finds no module is a failure; one a minute of them is logged",
        consumers={"endpoint": partial(endpoint, error_visibility=2), "poller": poller},
    ),
    "lease": Scene(
        culprits=[], blameless=60, seconds=(6.0,), max_receives=10,
        variables={"BEANSTALK_DISPATCH_LEASE_CACHE": "default"},
        during=partial(Kills, seconds=12), may_fail=THREADS,
        reason="with a server of isolation all its children end, and those deliveries fail",
    ),
    "half-open-connections": Scene(
        culprits=[], consumers=_POLLER, variables={"FILE_LIMIT": "1024"}, seconds=(0.5,),
        during=HalfOpenConnections,
        no_meaning={"endpoint": "gunicorn has no health port; nginx takes the connections."},
    ),
}  # fmt: skip

ATTACKS: Final[dict[str, Scene]] = {
    f"attack-{name}": Scene(
        culprits=[("hostile", [name])] * 3, blameless=100, visibility=10,
        variables={"FILE_LIMIT": "1024"},
    )
    for name in CULPRITS
}  # fmt: skip
"""One scene for each hostile task. Not all of them can be contained: docs/isolation.md."""
ATTACKS["kills-of-children"] = Scene(
    culprits=[],
    isolations=["process"],
    no_meaning={"thread": "There are no children."},
    consumers=_BOTH,
    blameless=3_000,
    seconds=(0.5, 1.0, 7.5),
    visibility=20,
    max_receives=60,
    patience=1_800,
    variables=_LEASE,
    during=partial(Kills, seconds=600),
    may_fail=3_000,
    reason="with a server of isolation all its children end, and each of those deliveries fails",
)
