"""Tasks that write down which release has run them."""

from __future__ import annotations

import os
import time

from beanstalk_dispatch.safe_task import Retry, SafeTask


def write_down(sender: str, kind: str, number: int) -> None:
    """Append one line, in one write: two processes share the file."""
    line = f"{os.environ['RELEASE']} {sender} {kind} {number}\n"
    file = os.open(os.environ["RECORD"], os.O_APPEND | os.O_WRONLY | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def plain(sender: str, kind: str, number: int) -> None:
    """Take a moment, so that one worker cannot run everything."""
    time.sleep(0.05)
    write_down(sender, kind, number)


class Again(SafeTask):
    """Ask for a retry first. Either release may run the copy that the other one has sent."""

    def run(self, sender: str, kind: str, number: int) -> None:
        assert self.delivery is not None
        assert self.delivery.message is not None
        if self.delivery.message.attempt == 1:
            raise Retry("at the second attempt", delay=1)
        write_down(sender, kind, number)
