from __future__ import annotations

import errno
import fcntl
import os
import resource

import pytest

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.running.left_behind.open_files import FILES, can_open_files
from tests.conftest import Environment
from tests.runs import deliver


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EMFILE, False), (errno.ENFILE, False), (errno.EBADF, True)]
)
def test_whether_files_can_be_opened(
    number: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_open_files()
    monkeypatch.setattr(FILES, "are_suspect", True)

    def refused(*values: int) -> int:
        raise OSError(number, "")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    assert can_open_files() is can_open_files() is expected
    monkeypatch.setattr(FILES, "are_suspect", True)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert can_open_files()


def test_a_task_that_fails_during_the_look_is_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dup = fcntl.fcntl

    def look(*values: int) -> int:
        FILES.are_suspect = True  # as another thread does
        return dup(*values)

    monkeypatch.setattr(FILES, "are_suspect", True)
    monkeypatch.setattr(fcntl, "fcntl", look)
    assert can_open_files()
    assert FILES.are_suspect


def test_files_that_are_kept_are_noticed_although_others_were_closed(env: Environment) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/dev/fd"))) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    kept: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                kept.append(os.dup(0))
        for each in kept[:10]:
            os.close(each)
        del kept[:10]
        assert can_open_files()  # nothing has failed yet
        env(WORKER=True, DISPATCH_TABLE="fail=tests.jobs.fail")
        with pytest.raises(OSError, match="Too many open files"):
            while True:  # those that a thread of another test has closed meanwhile
                kept.append(fcntl.fcntl(0, fcntl.F_DUPFD, limit - 16))
        deliver(Message(function="fail").encode(queue="q"), Delivery(queue="q"))
        assert not can_open_files()
        os.close(kept.pop())
        assert can_open_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in kept:
            os.close(each)
