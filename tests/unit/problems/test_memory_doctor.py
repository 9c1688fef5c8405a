from __future__ import annotations

from pathlib import Path

import pytest

from beanstalk_dispatch.problems import memory_doctor
from tests.conftest import Environment
from tests.unit.isolation.test_children import TABLE, outcome

SERVER = b"python\0-m\0beanstalk_dispatch.isolation.server\0009\0"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  900000 kB\nMemAvailable:  307200 kB\n")
    return tmp_path


def add_process(machine: Path, number: int, parent: int, line: bytes, mebibytes: int) -> None:
    directory = machine / "proc" / str(number)
    directory.mkdir()
    (directory / "cmdline").write_bytes(line)
    (directory / "status").write_text(f"Name:\tpython\nPPid:\t{parent}\n")
    (directory / "smaps_rollup").write_text(
        f"Rss:  90000 kB\nPrivate_Clean:  0 kB\nPrivate_Dirty:  {mebibytes * 1024} kB\n"
    )


def examine(machine: Path, connections: int = 15) -> list[tuple[str | None, str]]:
    found = memory_doctor.examine(connections, machine / "proc", machine / "cgroup")
    return [(each.id, each.msg) for each in found]


def test_the_typical_cost_of_a_child(machine: Path) -> None:
    facts = "a child process uses 15 MiB (typically); there is memory for 20"
    assert examine(machine) == [(None, facts)]
    assert examine(machine, 21) == [
        ("beanstalk_dispatch.W307", f"the daemon posts 21 tasks at a time: {facts}")
    ]


def test_the_children_that_run_are_measured(machine: Path) -> None:
    add_process(machine, 7, 1, SERVER, 60)
    add_process(machine, 8, 7, SERVER, 20)
    add_process(machine, 9, 7, SERVER, 40)
    add_process(machine, 10, 7, b"sh\0", 500)
    facts = "a child process uses 30 MiB (mean of 2); there is memory for 12"
    assert examine(machine, 12) == [(None, facts)]


def test_the_children_of_another_user_are_not_measured(machine: Path) -> None:
    add_process(machine, 7, 1, SERVER, 60)
    add_process(machine, 8, 7, SERVER, 20)
    add_process(machine, 9, 7, SERVER, 30)
    (machine / "proc" / "8" / "smaps_rollup").unlink()
    (machine / "proc" / "9" / "status").unlink()
    ((_, message),) = examine(machine)
    assert "15 MiB (typically)" in message


@pytest.mark.parametrize(
    ("limit", "left"), [("max", 20), (str(250 * 2**20), 10), (str(50 * 2**20), 0)]
)
def test_a_container_has_a_limit_of_its_own(machine: Path, limit: str, left: int) -> None:
    (machine / "cgroup" / "memory.max").write_text(f"{limit}\n")
    (machine / "cgroup" / "memory.current").write_text(f"{100 * 2**20}\n")
    ((_, message),) = examine(machine)
    assert message.endswith(f"there is memory for {left}")


def test_nothing_is_said_where_the_system_says_nothing(tmp_path: Path) -> None:
    assert examine(tmp_path) == []


@pytest.mark.slow
def test_a_child_that_runs_costs_little(env: Environment, tmp_path: Path) -> None:
    env(
        WORKER=True, DISPATCH_ISOLATION="process", DISPATCH_TABLE=TABLE, DISPATCH_QUEUES="q=q",
        DISPATCH_CRASH_LEDGER=tmp_path / "ledger",
    )  # fmt: skip
    for number in range(20):
        outcome("note", str(tmp_path / "notes"), task_id=str(number))
    (child,) = {line.split()[0] for line in (tmp_path / "notes").read_text().splitlines()}
    directory = Path("/proc") / child
    assert directory in memory_doctor._children(Path("/proc"))
    assert 0 < memory_doctor._private_memory(directory) < memory_doctor.TYPICAL_CHILD
