"""Names of real processes, and whether these have ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beanstalk_dispatch.running.leases import process_identity
from beanstalk_dispatch.running.leases.process_identity import has_ended, process_name


@contextmanager
def living_process() -> Iterator[str]:
    """A process that lives until the block ends; the block gets its name."""
    to_parent, to_child = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(to_child[1])
        os.write(to_parent[1], process_name().encode())
        os.read(to_child[0], 1)
        os._exit(0)
    try:
        yield os.read(to_parent[0], 1000).decode()
    finally:
        os.close(to_child[1])
        os.waitpid(child, 0)
        for end in (*to_parent, to_child[0]):
            os.close(end)


def ended_process() -> str:
    """The name of a process that has ended."""
    with living_process() as name:
        pass
    return name


@pytest.fixture(autouse=True)
def fresh_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    process_identity._process_name.cache_clear()
    yield
    monkeypatch.undo()
    process_identity._process_name.cache_clear()


def test_a_process_has_a_name_for_its_life() -> None:
    name = process_name()
    assert f"/{os.getpid()}:" in name
    assert " " not in name  # it is a word of the lease's token
    assert process_name() == name
    assert not has_ended(name)


def test_a_forked_child_has_a_name_of_its_own() -> None:
    name = process_name()
    with living_process() as child:
        assert child.rpartition("/")[0] == name.rpartition("/")[0]
        assert child != name
        assert not has_ended(child)
    assert has_ended(child)


def test_a_process_that_nobody_has_asked_for_yet_has_ended() -> None:
    """gunicorn asks for the end of its worker processes once in a second."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, process_name().encode())
        os._exit(0)
    name = os.read(reader, 1000).decode()
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert has_ended(name)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)


def test_a_process_that_has_the_id_of_another_one_is_not_that() -> None:
    with living_process() as name:
        assert has_ended(f"{name}0")


@pytest.mark.parametrize(
    "name",
    ["", "x", "another-boot/4026531836/4711:12", "of-an-older-release"],
)
def test_of_a_process_of_another_machine_nothing_is_known(name: str) -> None:
    assert not has_ended(name)


def test_the_process_of_another_user_is_taken_for_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process_id: int, signal: int) -> None:
        raise PermissionError

    name = ended_process()
    process_name()
    monkeypatch.setattr(os, "kill", refuse)
    assert not has_ended(name)


def test_on_lambda_a_process_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = ended_process()
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "worker")
    assert process_name() == ""
    assert not has_ended(name)


def test_without_proc_a_process_has_no_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_identity, "_PROC", tmp_path)
    assert process_name() == ""


def test_with_the_proc_of_another_namespace_a_process_has_no_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_identity, "_PROC", tmp_path)
    (tmp_path / "self").symlink_to("1")
    assert process_name() == ""
