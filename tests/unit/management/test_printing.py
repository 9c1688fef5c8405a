from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, TextIO

import pytest
from django.core.management import CommandError, call_command

from beanstalk_dispatch.management.commands import beanstalk_eb, beanstalk_worker
from beanstalk_dispatch.management.printing import EXIT_NO_READER, PrintingCommand


@contextmanager
def unread() -> Iterator[TextIO]:
    """A stdout that nobody reads any longer, as after ``| head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout, redirect_stdout(stdout):
        yield stdout


class Unchecked(PrintingCommand):
    requires_system_checks: ClassVar[list[str]] = []  # type: ignore[misc]


def ended(command: type[PrintingCommand], *arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as info:
        command().run_from_argv(["manage.py", "command", *arguments])
    return info.value.code


@pytest.mark.parametrize("size", [10, 100_000])
def test_nobody_reads_what_is_printed(size: int, capfd: pytest.CaptureFixture[str]) -> None:
    class Command(Unchecked):
        def handle(self, *args: Any, **options: Any) -> None:
            self.stdout.write("x" * size)

    with unread() as stdout:
        assert ended(Command) == EXIT_NO_READER
        stdout.flush()  # as Python's exit does
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk_is_one_sentence(size: int, capfd: pytest.CaptureFixture[str]) -> None:
    class Command(Unchecked):
        def handle(self, *args: Any, **options: Any) -> None:
            self.stdout.write("x" * size)

    with Path("/dev/full").open("w") as stdout, redirect_stdout(stdout):
        assert ended(Command) == 1
        stdout.flush()  # as Python's exit does
    assert capfd.readouterr().err == "CommandError: [Errno 28] No space left on device\n"


def test_another_error_of_the_system_keeps_its_traceback() -> None:
    class Command(Unchecked):
        def handle(self, *args: Any, **options: Any) -> None:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        Command().run_from_argv(["manage.py", "command"])


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Command(Unchecked):
        def handle(self, *args: Any, **options: Any) -> None:
            self.stdout.write("a line")
            self.stderr.write(str(sys.stderr.isatty()))

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        command = Command()
        with sys.stdout, sys.stderr:
            command.run_from_argv(["manage.py", "command"])


def test_a_failure_whose_lines_nobody_reads() -> None:
    class Command(Unchecked):
        def handle(self, *args: Any, **options: Any) -> None:
            self.stdout.write("what is wrong")
            raise CommandError("see above")

    with unread():
        assert ended(Command) == EXIT_NO_READER


def test_a_command_that_is_read_ends_as_others_do(capsys: pytest.CaptureFixture[str]) -> None:
    class Command(Unchecked):
        def handle(self, *args: Any, **options: Any) -> None:
            self.stdout.write("a line")

    Command().run_from_argv(["manage.py", "command"])
    assert capsys.readouterr().out == "a line\n"


def test_a_closed_pipe_is_no_fault_of_the_directory(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = ("--region=eu-west-1", "--account=123456789012", f"--directory={tmp_path}")
    with unread() as stdout:
        unbuffered = io.TextIOWrapper(io.FileIO(stdout.fileno(), "w", closefd=False))
        unbuffered.reconfigure(write_through=True)
        with redirect_stdout(unbuffered):
            code = ended(beanstalk_eb.Command, "--no-input", *where)
    assert code == EXIT_NO_READER
    assert "--directory" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("value", "option", "is_plain"),
    [("1", [], True), ("", [], False), ("1", ["--force-color"], False)],
)
def test_no_color_is_plain_text(
    monkeypatch: pytest.MonkeyPatch, value: str, option: list[str], is_plain: bool
) -> None:
    seen: list[bool] = []

    class Command(Unchecked):
        def handle(self, *args: Any, **options: Any) -> None:
            seen.append(options["no_color"])

    monkeypatch.setenv("NO_COLOR", value)
    call_command(Command(), *option)
    assert seen == [is_plain]


def test_a_worker_is_one_of_these_commands_and_runs_its_checks() -> None:
    assert issubclass(beanstalk_worker.Command, PrintingCommand)
    assert beanstalk_worker.Command.check is not PrintingCommand.check


def test_a_question_that_nobody_answers_is_one_sentence() -> None:
    class Command(Unchecked):
        def handle(self, *args: Any, **options: Any) -> None:
            raise EOFError

    with pytest.raises(CommandError, match="the input has ended before a question was answered"):
        call_command(Command())
