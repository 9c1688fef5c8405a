"""What tests of the worker share: short times, a recording runner, and messages."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final

from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.consumers.poller.in_flight import Ack, Nack
from beanstalk_dispatch.consumers.poller.options import WorkerOptions, WorkerTimes
from beanstalk_dispatch.consumers.poller.runners import Runner, TaskStarts
from beanstalk_dispatch.consumers.poller.worker import Worker
from beanstalk_dispatch.process.service_thread import alive
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.queue import Queue, Received
from tests.batches import Entry

ACK: Final = Ack()
TIMES: Final = WorkerTimes(
    stop_check_interval=0.01,
    batch_interval=0.03,
    backoff_check_interval=0.02,
    first_retry=0.1,
    long_poll_margin=0.3,
    flush_timeout=2,
)
"""About a tenth of the real times."""
QUICK: Final[dict[str, Any]] = {
    "wait": 1, "visibility_timeout": 30, "threads": 4, "grace": 5.0, "times": TIMES,
}  # fmt: skip


def until(condition: Callable[[], object], seconds: float = 60, every: float = 0.005) -> None:
    """Wait until ``condition`` holds; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(every)


NO_CLIENTS: Final[Any] = SimpleNamespace(config=SimpleNamespace(send_timeout=timedelta(seconds=10)))
"""For a queue of tests that make no request."""


def messages(count: int, *, group: str | None = None, receive_count: int = 1) -> list[Received]:
    """Messages as if they were received just now; with a group, from a FIFO queue."""
    name = "q" if group is None else "q.fifo"
    queue = Queue(QueueAddress(name=name), "http://127.0.0.1:9/1/q", NO_CLIENTS)
    return [
        Received(
            queue=queue,
            message_id=f"{group}-{number}",
            receipt="receipt",
            body=str(number),
            expires=time.monotonic() + 30,
            attributes={"ApproximateReceiveCount": str(receive_count)}
            | ({} if group is None else {"MessageGroupId": group}),
            message_attributes={},
        )
        for number in range(count)
    ]


class Recording:
    """A runner that keeps the bodies, and answers what ``answer`` says of each message."""

    def __init__(self, answer: Callable[[Received], Ack | Nack] = lambda received: ACK) -> None:
        self.bodies: list[str] = []
        self.answer = answer

    def __call__(self, received: Received, on_start: TaskStarts) -> Ack | Nack:
        self.bodies.append(received.body)
        return self.answer(received)


def waiting_for(gate: threading.Event) -> Callable[[Received], Ack | Nack]:
    """An answer that is Ack once ``gate`` is set."""

    def answer(received: Received) -> Ack | Nack:
        gate.wait(20)
        return ACK

    return answer


_made: list[Worker] = []


def make_worker(runner: Runner, *queues: str, **options: Any) -> Worker:
    worker = Worker(queues or ("jobs",), runner, WorkerOptions(**(QUICK | options)))
    _made.append(worker)
    return worker


def wait_for_threads() -> None:
    """Wait until every thread of the workers made so far has ended, and fail if one does not.

    A stop leaves a thread behind whose request or task hangs, and it would disturb other tests.
    """
    receivers = [receiver for worker in _made for receiver in worker._receivers]
    threads = [
        *(thread for worker in _made for thread in worker.tasks.threads),
        *(thread for receiver in receivers for thread in receiver.threads),
        *(thread for worker in _made for thread in worker.requests.threads),
    ]
    _made.clear()
    until(lambda: not alive(threads), 30)


@contextmanager
def restored_signal_handlers() -> Iterator[None]:
    """Restore the handlers of the signals that a process with a worker handles."""
    numbers = (
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGVTALRM,
        signal.SIGPROF,
    )  # fmt: skip
    handlers = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def running(runner: Runner, *queues: str, **options: Any) -> Iterator[Worker]:
    """A worker in a thread; stopped at the end of the block, which waits for it to end."""
    worker = make_worker(runner, *queues, **options)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(worker.run()))
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
    assert len(codes) == 1


def drain(runner: Runner, *queues: str, **options: Any) -> int:
    """Run a worker until its queues are empty, and return its exit code."""
    return make_worker(runner, *queues, burst=True, **options).run()


def send(*bodies: str, alias: str = "jobs") -> None:
    """Send messages with these bodies. Makes the queue if need be."""
    open_queue(alias).send_batch([Entry(body=body, send_parameters={}) for body in bodies])


def left(alias: str = "jobs") -> list[str]:
    """Receive up to ten messages that are visible, and return their bodies."""
    found = open_queue(alias).receive(count=10, wait=0, visibility=30)
    return sorted(each.body for each in found)


# --- received messages ---

QUEUE = Queue(QueueAddress(name="q"), "http://127.0.0.1:9/1/q", NO_CLIENTS)
PERIODIC = {
    "beanstalk.sqsd.task_name": "record",
    "beanstalk.sqsd.path": "/cron",
    "beanstalk.sqsd.scheduled_time": "2023-08-15T13:55:00Z",
}


def received(body: str = "", count: int = 1, **message_attributes: str) -> Received:
    return Received(
        queue=QUEUE,
        message_id="from-sqs",
        receipt="receipt",
        body=body,
        expires=time.monotonic() + 30,
        attributes={
            "ApproximateReceiveCount": str(count),
            "ApproximateFirstReceiveTimestamp": "1692107873000",
            "SentTimestamp": "1692107870000",
        },
        message_attributes=message_attributes,
    )
