"""What small things cost: the figures of docs/decisions/ that no other benchmark prints."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

ROUNDS: Final = 7
QUEUE: Final = "shop-mail"
KEY: Final = "k" * 43  # as long as a key of secrets.token_urlsafe(32)


def microseconds(action: Callable[[], object], times: int) -> str:
    """CPU time of one call, as median and range of several rounds."""
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(times):
            action()
        found.append((time.process_time() - started) / times * 1e6)
    return f"{statistics.median(found):6.2f} us ({min(found):.2f} to {max(found):.2f})"


def in_a_thread(action: Callable[[], str]) -> str:
    """What ``action`` returns in a thread that is not the main thread."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(action()))
    thread.start()
    thread.join()
    return found[0]


def time_limits() -> None:
    from beanstalk_dispatch.exceptions import TaskTimeout
    from beanstalk_dispatch.running.limits.time_limit import time_limit

    def enter_and_leave() -> None:
        with time_limit(60):
            pass

    def end_of_a_blocking_call() -> str:
        started = time.monotonic()
        with suppress(TaskTimeout), time_limit(0.2):
            time.sleep(1)
        return f"{time.monotonic() - started:6.2f} s"

    cost = partial(microseconds, enter_and_leave, 20_000)
    print(f"a time limit, main thread          {cost()}")
    print(f"a time limit, another thread       {in_a_thread(cost)}")
    print(f"sleep(1) in 0.2 s, main thread     {end_of_a_blocking_call()}")
    print(f"sleep(1) in 0.2 s, another thread  {in_a_thread(end_of_a_blocking_call)}")


def messages() -> None:
    from beanstalk_dispatch.messages.message import Message

    message = Message(function="send_welcome", args=[7], kwargs={"a": "b" * 100}, sent_at=1.0)
    for name, keys in (("unsigned", []), ("signed", [KEY])):
        body = message.encode(queue=QUEUE, keys=keys)
        encode = partial(message.encode, queue=QUEUE, keys=keys)
        decode = partial(Message.decode, body, queue=QUEUE, keys=keys)
        print(f"encode, {name}, {len(body)} bytes".ljust(34), microseconds(encode, 5_000))
        print(f"decode, {name}, {len(body)} bytes".ljust(34), microseconds(decode, 5_000))


def configuration() -> None:
    from beanstalk_dispatch.conf import clear_caches, get_config

    def read() -> None:
        clear_caches()
        get_config()

    print(f"configuration, read                {microseconds(read, 500)}")
    print(f"configuration, cached              {microseconds(get_config, 200_000)}")


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    pairs = (f"name{number}=package.module.function{number}" for number in range(20))
    os.environ["BEANSTALK_DISPATCH_TABLE"] = " ".join(pairs)

    import django

    django.setup()
    time_limits()
    messages()
    configuration()


if __name__ == "__main__":
    main()
