from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from django.test import override_settings

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running import crash_ledger
from beanstalk_dispatch.running.crash_ledger import (
    _CUTS_AT,
    _CUTS_END,
    _ID_LENGTH,
    MAX_CUT_TASKS,
    SIZE,
    SLOTS_IN_BLOCK,
    CrashLedger,
    CutTask,
    LedgerError,
    TaskPlace,
    open_ledger,
)
from tests.services import in_child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def begin(
    ledger: CrashLedger, task_id: str = "task-1", *, place: TaskPlace = TaskPlace.THREAD
) -> int:
    message = Message(function="build_report", id=task_id)
    delivery = Delivery(queue="shop-mail", message_id="from-sqs", receive_count=3)
    slot = ledger.begin(message, delivery, place=place)
    assert slot is not None
    return slot


def run_and_die(path: Path, *task_ids: str, place: TaskPlace = TaskPlace.THREAD) -> None:
    def run() -> None:
        ledger, _ = open_ledger(str(path))
        for task_id in task_ids:
            begin(ledger, task_id, place=place)

    in_child(run)


def cut_tasks(path: Path) -> list[CutTask]:
    ledger, cut = open_ledger(str(path))
    ledger.close()
    return cut


# --- what was cut off ------------------------------------------------------------------------


def test_what_a_dead_process_was_running_is_found_once(path: Path) -> None:
    run_and_die(path, "task-1", "task-2")
    cut = cut_tasks(path)
    assert [task.id for task in cut] == ["task-1", "task-2"]
    task = cut[0]
    assert (task.function, task.message_id, task.queue) == (
        "build_report",
        "from-sqs",
        "shop-mail",
    )
    assert (task.receive_count, task.times_cut) == (3, 1)
    assert 0 <= task.seconds < 30
    assert task.process_id != os.getpid()
    assert cut_tasks(path) == []


def test_what_has_ended_was_not_cut_off(path: Path) -> None:
    def run() -> None:
        ledger, _ = open_ledger(str(path))
        slot = begin(ledger, "ended")
        begin(ledger, "cut")
        ledger.end(slot)

    in_child(run)
    assert [task.id for task in cut_tasks(path)] == ["cut"]


def test_what_a_living_process_runs_is_left_alone(path: Path) -> None:
    ledger, _ = open_ledger(str(path))
    begin(ledger)
    path.read_bytes()  # as a task that copies a folder; it takes no lock away

    def look() -> None:
        other, cut = open_ledger(str(path))
        assert cut == []
        begin(other, "other")

    in_child(look)
    ledger.close()
    assert [task.id for task in cut_tasks(path)] == ["task-1", "other"]


def test_a_message_without_an_id_of_sqs_is_noted(path: Path) -> None:
    def run() -> None:
        ledger, _ = open_ledger(str(path))
        ledger.begin(Message(function="f", id="x"), Delivery(), place=TaskPlace.THREAD)

    in_child(run)
    (task,) = cut_tasks(path)
    assert (task.id, task.message_id, task.queue) == ("x", "", "")


def test_a_long_id_is_cut_to_its_field_and_still_counted(path: Path) -> None:
    long_id = "é" * 300
    run_and_die(path, long_id)
    ledger, (task,) = open_ledger(str(path))
    assert task.id == "é" * 64
    assert ledger.times_cut(long_id) == 1
    ledger.close()


def test_a_clock_that_was_set_back_gives_no_negative_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_and_die(path, "task-1")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert cut_tasks(path)[0].seconds == 0


# --- how often -------------------------------------------------------------------------------


def test_cuts_in_threads_are_counted_and_never_convict(path: Path) -> None:
    counts = []
    for _ in range(4):
        run_and_die(path, "task-1")
        counts += [task.times_cut for task in cut_tasks(path)]
    assert counts == [1, 2, 2, 2]


def test_a_task_in_a_child_is_not_counted_when_its_parent_ends(path: Path) -> None:
    run_and_die(path, "task-1")
    cut_tasks(path)
    run_and_die(path, "task-1", "new", place=TaskPlace.CHILD)
    assert {task.id: task.times_cut for task in cut_tasks(path)} == {"task-1": 1, "new": 0}


def test_every_process_sees_the_count_and_that_it_was_forgotten(path: Path) -> None:
    ledger, _ = open_ledger(str(path))
    assert ledger.times_cut("task-1") == 0
    run_and_die(path, "task-1", "task-2")
    in_child(lambda: bool(cut_tasks(path)))
    assert (ledger.times_cut("task-1"), ledger.times_cut("task-2")) == (1, 1)

    def forget() -> None:
        other, _ = open_ledger(str(path))
        other.forget_cuts("task-1")

    in_child(forget)
    assert (ledger.times_cut("task-1"), ledger.times_cut("task-2")) == (0, 1)
    ledger.close()


@pytest.mark.parametrize(("place", "expected"), [(TaskPlace.THREAD, 2), (TaskPlace.CHILD, 3)])
def test_a_process_that_goes_on_can_count(path: Path, place: TaskPlace, expected: int) -> None:
    ledger, _ = open_ledger(str(path))
    counts = [ledger.count_as_cut("task-1", place=place) for _ in range(3)]
    assert counts == [1, 2, expected]
    assert ledger.times_cut("task-1") == expected
    ledger.close()
    assert cut_tasks(path) == []


def test_when_the_table_is_full_the_oldest_is_forgotten(path: Path) -> None:
    ledger, _ = open_ledger(str(path))
    ids = [str(number).ljust(_ID_LENGTH, "\1") for number in range(MAX_CUT_TASKS + 1)]
    for each in ids:  # JSON makes them as long as it can
        ledger.count_as_cut(each, place=TaskPlace.CHILD)
    assert [ledger.times_cut(each) for each in (ids[0], ids[1], ids[-1])] == [0, 1, 1]
    assert _CUTS_AT + len(json.dumps(ledger._read_cuts())) < _CUTS_END
    ledger.close()


def test_a_table_that_is_half_written_counts_nothing(path: Path) -> None:
    ledger, _ = open_ledger(str(path))
    ledger.count_as_cut("task-1", place=TaskPlace.CHILD)
    os.pwrite(ledger._descriptor, b"{", _CUTS_AT + 1)
    assert ledger.count_as_cut("task-2", place=TaskPlace.CHILD) == 1
    assert (ledger.times_cut("task-1"), ledger.times_cut("task-2")) == (0, 1)
    ledger.close()


# --- room ------------------------------------------------------------------------------------


def test_slots_are_used_again(path: Path) -> None:
    ledger, _ = open_ledger(str(path))
    slots = set()
    for _ in range(3):
        slot = begin(ledger)
        slots.add(slot)
        ledger.end(slot)
    assert len(slots) == 1
    ledger.close()


def test_a_process_has_one_block_and_no_other_has_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_ledger, "BLOCKS", 2)
    ledger, _ = open_ledger(str(path))
    slots = [begin(ledger) for _ in range(SLOTS_IN_BLOCK)]
    assert len(set(slots)) == SLOTS_IN_BLOCK
    message = Message(function="f")
    assert ledger.begin(message, Delivery(), place=TaskPlace.THREAD) is None

    def take_the_last_block() -> None:
        other, _ = open_ledger(str(path))

        def find_none() -> None:
            with pytest.raises(LedgerError, match="2 processes use it"):
                open_ledger(str(path))

        in_child(find_none)
        other.close()

    in_child(take_the_last_block)
    ledger.end(slots[0])
    assert begin(ledger) == slots[0]
    ledger.close()


def test_a_closed_ledger_takes_the_end_of_a_task(path: Path) -> None:
    ledger, _ = open_ledger(str(path))
    slot = begin(ledger)
    ledger.close()
    ledger.end(slot)


# --- the file --------------------------------------------------------------------------------


def test_the_file_is_of_this_user_alone(path: Path) -> None:
    cut_tasks(path)
    status = path.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_size) == (0o600, os.geteuid(), SIZE)


def symbolic_link(path: Path) -> None:
    cut_tasks(path.with_name("other"))
    path.symlink_to("other")


def hard_link(path: Path) -> None:
    cut_tasks(path.with_name("other"))
    path.hardlink_to(path.with_name("other"))


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def short(path: Path) -> None:
    path.write_bytes(b"short")
    path.chmod(0o600)


def of_another_version(path: Path) -> None:
    path.write_bytes(b"bdledger\1" + bytes(SIZE - 9))
    path.chmod(0o600)


def readable(path: Path) -> None:
    cut_tasks(path)
    path.chmod(0o644)


def writable_by_its_group(path: Path) -> None:
    cut_tasks(path)
    path.chmod(0o620)


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (writable_by_its_group, "its mode is 620, so that other users can use it; write 600"),
        (symbolic_link, "it is a symbolic link"),
        (hard_link, "it has 2 names; it must have one"),
        (pipe, "it is not a regular file"),
        (short, f"it has 5 bytes, not {SIZE}; remove it"),
        (of_another_version, "it is not a crash ledger of this version; remove it"),
        (readable, "its mode is 644, so that other users can use it; write 600"),
    ],
)
def test_a_file_that_is_odd_is_not_used(
    path: Path, prepare: Callable[[Path], None], error: str
) -> None:
    prepare(path)
    before = path.lstat()
    with pytest.raises(LedgerError) as caught:
        open_ledger(str(path))
    assert str(caught.value) == error
    assert path.lstat().st_mtime_ns == before.st_mtime_ns


def test_the_file_of_another_user_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_tasks(path)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(LedgerError, match=f"it belongs to user {mine}, not to user {mine + 1}"):
        open_ledger(str(path))


def test_what_is_no_file_or_has_no_directory_is_an_error(path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_ledger(str(path.parent))
    with pytest.raises(FileNotFoundError):
        open_ledger(str(path / "ledger"))


def test_a_file_that_the_disk_has_no_room_for_is_made_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:100], at))
        with pytest.raises(LedgerError, match="there is no space left for it"):
            open_ledger(str(path))
    assert path.stat().st_size == 0
    assert cut_tasks(path) == []


def test_a_process_waits_for_another_that_changes_the_table_but_not_for_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_tasks(path)
    monkeypatch.setattr(crash_ledger, "LOCK_SECONDS", 0.05)
    descriptor = os.open(path, os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, crash_ledger._TABLE_LOCK)

    def wait() -> None:
        with pytest.raises(LedgerError, match=r"another process has locked it for 0\.05 s"):
            open_ledger(str(path))

    in_child(wait)
    os.close(descriptor)


def test_the_default_is_a_file_of_the_user_and_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    (name,) = [Path(crash_ledger.default_path()).name]
    assert re.fullmatch(
        rf"beanstalk_dispatch-{os.geteuid()}-tests\.settings-\w{{12}}\.ledger3", name
    )
    assert crash_ledger.default_path() == f"/dev/shm/{name}"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert crash_ledger.default_path() == f"{tempfile.gettempdir()}/{name}"


@pytest.mark.parametrize(
    ("module", "name"), [(None, "settings"), ("shop/../x y", "shop_.._x_y"), ("a" * 300, "a" * 100)]
)
def test_a_project_is_named_by_its_settings(module: str | None, name: str) -> None:
    with override_settings(SETTINGS_MODULE=module):
        path = Path(crash_ledger.default_path())
    assert path.name.startswith(f"beanstalk_dispatch-{os.geteuid()}-{name}-")


def test_two_projects_whose_settings_have_one_name_have_two_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = set()
    for project in ("shop", "mail"):
        module = ModuleType("config.settings")
        module.__file__ = str(tmp_path / project / "config" / "settings.py")
        monkeypatch.setitem(sys.modules, "config.settings", module)
        with override_settings(SETTINGS_MODULE="config.settings"):
            found |= {crash_ledger.default_path(), crash_ledger.default_path()}
    assert len(found) == 2
