from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from beanstalk_dispatch.isolation.pipe import Notes, receive

_WRITE = """
import sys
from beanstalk_dispatch.isolation.pipe import Notes
notes = Notes(int(sys.argv[1]))
for number in range(300_000):
    notes.write_expected_end(1e6 + number)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_a_parent_never_reads_half_of_what_a_child_writes() -> None:
    notes = Notes.create()
    notes.write_expected_end(1e6)
    command = [sys.executable, "-c", _WRITE, str(notes.descriptor)]
    earliest = 1e6
    with subprocess.Popen(command, pass_fds=[notes.descriptor]) as child:
        while child.poll() is None:
            earliest = min(earliest, *(notes.expected_end for _ in range(2_000)))
    assert (child.returncode, earliest) == (0, 1e6)
    assert notes.expected_end > 1e6
    notes.close()


def test_a_process_that_has_ended_before_it_has_read_all_sends_no_more() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"an answer")
        theirs.close()
        assert receive(ours.fileno()) is None
