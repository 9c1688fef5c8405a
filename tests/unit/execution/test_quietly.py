"""What observes may fail, and changes nothing by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType

import pytest

from beanstalk_dispatch.execution.quietly import quietly


@contextmanager
def failing(*, before: bool = False, after: bool = False) -> Iterator[str]:
    if before:
        raise KeyError("before")
    try:
        yield "entered"
    finally:
        if after:
            raise KeyError("after")


class Raising(AbstractContextManager[str]):
    """Raises what it is shown, itself."""

    def __enter__(self) -> str:
        return "entered"

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            raise exc


@pytest.mark.parametrize(
    ("manager", "value", "log"),
    [
        (failing(), "entered", ""),
        (failing(before=True), "default", "not observed"),
        (failing(after=True), "entered", "not observed to its end"),
        (Raising(), "entered", ""),
    ],
)
def test_the_block_runs_in_any_case(
    manager: AbstractContextManager[str], value: str, log: str, caplog: pytest.LogCaptureFixture
) -> None:
    with quietly(manager, "default") as given:
        assert given == value
    assert [record.getMessage() for record in caplog.records] == [log] * bool(log)


@pytest.mark.parametrize(
    ("manager", "log"), [(failing(), ""), (failing(after=True), "to its end"), (Raising(), "")]
)
def test_what_the_block_raises_comes_out(
    manager: AbstractContextManager[str], log: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="the block's own"), quietly(manager, "default"):
        raise ValueError("the block's own")
    assert bool(caplog.records) is bool(log)
    assert log in caplog.text
