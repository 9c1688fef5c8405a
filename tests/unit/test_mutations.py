"""Eight deliberate bugs, each of which the check of the random inputs must find.

Without the bug the same input passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pytest

from beanstalk_dispatch.exceptions import BadSignature
from beanstalk_dispatch.messages import bodies, message
from beanstalk_dispatch.messages.message import Message, wrap
from beanstalk_dispatch.messages.signatures import strip_signature
from beanstalk_dispatch.running.definitions import declared_tasks, dispatch_table, entries
from beanstalk_dispatch.running.stages import read
from tests import fuzzing
from tests.fuzzing import KEYS, Worker, demand

Patch = pytest.MonkeyPatch


def body(**members: Any) -> bytes:
    return json.dumps({"function": "record", "args": [], "kwargs": {}} | members).encode()


# --- the bugs --------------------------------------------------------------------------------


def skip_the_signature(patch: Patch) -> None:
    patch.setattr(bodies, "verified", lambda content, **more: strip_signature(content))


def skip_the_signature_inside_a_dead_letter(patch: Patch) -> None:
    read_object = bodies.read_object

    def read(content: bytes | str, *, queue: str, keys: Sequence[str]) -> dict[str, Any]:
        is_inside = isinstance(content, str)  # what is received by POST is bytes
        return read_object(content, queue=queue, keys=() if is_inside else keys)

    patch.setattr(bodies, "read_object", read)


def let_any_task_be_periodic(patch: Patch) -> None:
    patch.setattr(read, "_periodic_message", lambda run: Message(function=run.task_name, id="1"))


def take_any_character_in_a_name(patch: Patch) -> None:
    patch.setitem(message._MEMBERS, "function", (str, bool, message.NAME_FORM))


def parse_any_depth(patch: Patch) -> None:
    patch.setattr(bodies, "parse_object", json.loads)


def take_any_type_in_headers(patch: Patch) -> None:
    row = (dict, None, "an object of strings")
    patch.setitem(message._MEMBERS, "headers", row)


def import_any_path(patch: Patch) -> None:
    patch.setattr(
        dispatch_table, "resolve", lambda name, config: declared_tasks.import_dotted_path(name)
    )


def show_the_keys(patch: Patch) -> None:
    def unsign(content: str, *, queue: str, keys: Sequence[str]) -> NoReturn:
        raise BadSignature(f"signed by none of {[str(key) for key in keys]}")

    patch.setattr(bodies, "verified", unsign)


# --- the inputs ------------------------------------------------------------------------------


def post_unsigned(worker: Worker) -> None:
    worker.post(body())


def post_a_letter_with_an_unsigned_message(worker: Worker) -> None:
    worker.post(wrap(body(), {"attempts": 1, "id": "a"}, queue="q", keys=KEYS).encode())


def post_a_periodic_task(worker: Worker) -> None:
    worker.post(b"", {"HTTP_X_AWS_SQSD_TASKNAME": "record"})


def post_a_line_break(worker: Worker) -> None:
    worker.post(body(function="a\nb"))


def post_deep_json(worker: Worker) -> None:
    worker.post(b"[" * 100_000)


def post_wrong_headers(worker: Worker) -> None:
    demand(worker.post(body(headers={"a": 1})).status_code == 400, "headers of any type")


def post_a_path(worker: Worker) -> None:
    worker.post(body(function="os.path.join"))


CASES: list[tuple[Callable[[Patch], None], Callable[[Worker], None], bool]] = [
    (skip_the_signature, post_unsigned, True),
    (skip_the_signature_inside_a_dead_letter, post_a_letter_with_an_unsigned_message, True),
    (let_any_task_be_periodic, post_a_periodic_task, True),
    (take_any_character_in_a_name, post_a_line_break, False),
    (parse_any_depth, post_deep_json, False),
    (take_any_type_in_headers, post_wrong_headers, False),
    (import_any_path, post_a_path, False),
    (show_the_keys, post_unsigned, True),
]


@pytest.mark.parametrize(("bug", "attack", "keys"), CASES)
def test_a_bug_is_found(
    bug: Callable[[Patch], None],
    attack: Callable[[Worker], None],
    keys: bool,
    monkeypatch: Patch,
) -> None:
    with fuzzing.worker(keys=keys) as worker:
        attack(worker)
        entries.entries_by_name.cache_clear()
        with monkeypatch.context() as patch:
            bug(patch)
            with pytest.raises(fuzzing.Broken):
                attack(worker)
    entries.entries_by_name.cache_clear()
