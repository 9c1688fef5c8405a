"""Ask servers that speak SQS whether they do what this package believes of SQS.

    python -m benchmarks.beliefs [--ministack PATH] [--fauxqs PATH] [--localstack PATH]
    python -m benchmarks.beliefs --endpoint https://sqs.eu-west-1.amazonaws.com

Without an endpoint the stand-ins are asked, and the table of docs/beliefs.md is written; the exit
code is 1 if it has changed. With one, that server is asked, with the credentials that boto3 finds,
and the exit code is 1 if it differs. The queues have a random prefix, and are deleted at the end.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.stand_ins import fauxqs, localstack, ministack, moto

from . import batches, fifo, messages, queues
from .server import BELIEFS, MAX_REQUESTS, MAX_SECONDS, Belief, Server, answer_to

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "beliefs.md"
SUBJECTS: Final = {"Messages": messages, "Batches": batches, "FIFO queues": fifo, "Queues": queues}
AT_A_TIME: Final = 8


def ask(server: Server) -> dict[Belief, str]:
    """Return the answer of a server to each belief, and delete the queues that were made."""
    try:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            answers = list(pool.map(lambda belief: answer_to(belief, server), BELIEFS))
    finally:
        if left := server.delete_queues():
            print("NOT DELETED; delete them yourself:", *left, sep="\n  ", file=sys.stderr)
    return dict(zip(BELIEFS, answers, strict=True))


def table(answers: dict[str, dict[Belief, str]]) -> str:
    """Return the tables of the page: a row for each belief, a column for each server."""
    parts = []
    for subject, module in SUBJECTS.items():
        rows = [f"| {subject} | {' | '.join(answers)} |\n|---|{'---|' * len(answers)}\n"]
        for belief in BELIEFS:
            if belief.ask.__module__ == module.__name__:
                cells = " | ".join(each[belief] or "yes" for each in answers.values())
                rows.append(f"| [{belief.text}]({belief.page}) | {cells} |\n")
        parts.append("".join(rows))
    return "\n".join(parts)


def with_tables(page: str, tables: str) -> str:
    """Return the page with its tables replaced, which are the last on it."""
    return page[: page.index(f"| {next(iter(SUBJECTS))} |")] + tables


@contextmanager
def stand_ins(
    ministack_program: str, fauxqs_folder: Path, localstack_python: str
) -> Iterator[dict[str, str]]:
    """Run the stand-ins, and yield their URLs by name. Raise SystemExit if one is missing."""
    with ExitStack() as stack:
        found = {
            "moto": stack.enter_context(moto()),
            "ministack": stack.enter_context(ministack(ministack_program)),
        }
        other = stack.enter_context(fauxqs(fauxqs_folder))
        if other is None:
            raise SystemExit("fauxqs has no Node here; `make beliefs` installs it")
        last = stack.enter_context(localstack(localstack_python))
        yield found | {"fauxqs": other, "localstack": last}


def ask_stand_ins(*programs: Any) -> int:
    """Ask the stand-ins, and write the page. Return 1 if it has changed."""
    answers = {}
    with stand_ins(*programs) as found:
        for name, endpoint in found.items():
            started = time.monotonic()
            answers[name] = ask(Server(endpoint, is_local=True))
            agreed = sum(not each for each in answers[name].values())
            print(f"{name}: {agreed} of {len(BELIEFS)}, in {time.monotonic() - started:.0f} s")
    before = PAGE.read_text()
    after = with_tables(before, table(answers))
    PAGE.write_text(after)
    if after == before:
        return 0
    print(f"{PAGE.name} has changed; look at what, and commit it")
    return 1


def ask_endpoint(endpoint: str) -> int:
    """Ask one server, and print where it differs. Return 1 if it does."""
    server = Server(endpoint)
    print(
        f"Asking {endpoint} in {server.client.meta.region_name}. The queues are named "
        f"{server.prefix}-… and are deleted at the end. At most {MAX_REQUESTS:,} requests (about "
        f"$0.002 on AWS) and {MAX_SECONDS / 60:.0f} minutes.",
        flush=True,
    )
    answers = ask(server)
    for belief, answer in answers.items():
        print(f"{f'NO ({answer})' if answer else 'yes'}: {belief.text}")
        if answer:
            print(f"    {belief.page}")
    agreed = sum(not each for each in answers.values())
    print(f"{agreed} of {len(BELIEFS)}, with {server.budget.used:,} requests")
    return 0 if agreed == len(BELIEFS) else 1


def main() -> int:
    """Ask the servers that the command line names."""
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", str(__doc__))[0])
    parser.add_argument("--endpoint", help="ask this server, in place of the stand-ins")
    parser.add_argument("--ministack", default="ministack")
    parser.add_argument("--fauxqs", type=Path, default=Path(".venv-fauxqs"))
    parser.add_argument("--localstack", default=".venv-localstack/bin/python")
    arguments = parser.parse_args()
    if arguments.endpoint:
        return ask_endpoint(arguments.endpoint)
    return ask_stand_ins(arguments.ministack, arguments.fauxqs, arguments.localstack)


if __name__ == "__main__":
    sys.exit(main())
