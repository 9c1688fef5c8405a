from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from beanstalk_dispatch.client import Call, schedule, schedule_many
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import BatchError, SendError
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.observers import Observer, Publication
from beanstalk_dispatch.scheduling.destination import Destination, resolve
from beanstalk_dispatch.scheduling.later import PLACES
from beanstalk_dispatch.scheduling.prepare import Prepared, prepare_calls
from beanstalk_dispatch.scheduling.send import SendResult, publish
from tests.conftest import Environment
from tests.proxy import Proxy
from tests.recording_sqs import Sqs, body_of

HERE = "tests.unit.scheduling.test_send"

seen: list[object] = []


class Watcher(Observer):
    @contextmanager
    def publishing(self, publications: Sequence[Publication], queue: str) -> Iterator[None]:
        for each in publications:
            each.headers["tenant"] = queue
        try:
            yield
        except BaseException as exc:
            seen.append(type(exc))
            raise


@pytest.fixture
def sqs(sqs_env: Environment, proxy: Proxy) -> Sqs:
    sqs_env(
        DISPATCH_SQS_ENDPOINT_URL=proxy.url,
        DISPATCH_QUEUES="jobs=jobs",
        DISPATCH_CREATE_QUEUES=False,
        DISPATCH_OBSERVERS=f"{HERE}.Watcher",
        AWS_MAX_ATTEMPTS=1,
    )
    seen.clear()
    proxy.spoil = found = Sqs()
    return found


def test_an_error_that_keeps_all_calls_from_being_sent_is_raised(sqs: Sqs) -> None:
    def send(destination: Destination, prepared: Sequence[Prepared]) -> list[SendResult]:
        raise SendError("no client")

    destination, prepared = prepare_calls("jobs", [Call("record")], get_config(), is_local=False)
    with pytest.raises(SendError, match="no client"):
        publish(destination, prepared, send)
    assert seen == [SendError]


def test_an_observer_sees_the_error_that_the_caller_gets(sqs: Sqs) -> None:
    sqs.refuses_entry = lambda label: label == 2
    with pytest.raises(BatchError) as caught:
        schedule_many("jobs", [Call("record", [n]) for n in range(3)])
    assert caught.value.unsent == {2: "Refused"}
    assert seen == [BatchError]


def test_the_headers_of_an_observer_need_no_second_encoding(
    sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = Message.write

    def counted(message: Message, **options: bool) -> str:
        written.append(message.id)
        return write(message, **options)

    monkeypatch.setattr(Message, "write", counted)
    task_id = schedule("jobs", Call("record", [1], headers={"own": "1"}))
    assert written == [task_id]
    (entry,) = sqs.entries
    assert body_of(entry)["headers"] == {"own": "1", "tenant": "jobs"}
    assert list(json.loads(entry["MessageBody"])) == [
        "v", "id", "function", "args", "kwargs", "sent_at", "headers",
    ]  # fmt: skip


@pytest.mark.parametrize("on_commit", [None, True, False])
def test_a_question_changes_nothing(sqs_env: Environment, on_commit: bool | None) -> None:
    """Without access to a database, an INSERT would be an error."""
    sqs_env(DISPATCH_OUTBOX="always", DISPATCH_QUEUES="jobs=jobs")
    destination = resolve("jobs", get_config())
    answers = [place.takes(destination, on_commit) for place in PLACES[False]]
    assert answers == [on_commit is not False, False, False]
