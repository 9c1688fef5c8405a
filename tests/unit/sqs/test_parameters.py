from __future__ import annotations

from typing import Any

import pytest

from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.exceptions import InvalidCall, MessageTooLarge
from beanstalk_dispatch.sqs.parameters import check_size, send_parameters
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES

REMEDY = "set a delay on the queue instead"
ID_FORM = "expected 1 to 128 ASCII letters, digits and punctuation marks"


def test_parameters_have_the_names_of_sqs() -> None:
    assert send_parameters(QueueAddress(name="q"), delay=900, group_id="tenant-1") == {
        "DelaySeconds": 900,
        "MessageGroupId": "tenant-1",
    }


def test_a_fifo_queue_gets_a_deduplication_id() -> None:
    address = QueueAddress(name="q.fifo")
    assert send_parameters(address, group_id="g", message_id="i") == {
        "MessageGroupId": "g",
        "MessageDeduplicationId": "i",
    }
    given = send_parameters(address, group_id="g", deduplication_id="d", message_id="i")
    assert given["MessageDeduplicationId"] == "d"


@pytest.mark.parametrize(
    ("queue", "given", "reason"),
    [
        (
            "q.fifo",
            {"delay": 5, "group_id": "g"},
            f"q.fifo is a FIFO queue, which takes no delay per message; {REMEDY}",
        ),
        ("q.fifo", {}, "q.fifo is a FIFO queue; give the call a group_id"),
        ("q", {"deduplication_id": "d"}, "q is not a FIFO queue; it takes no deduplication_id"),
        ("q", {"group_id": ""}, f"group_id '': {ID_FORM}"),
        ("q", {"group_id": "a b"}, f"group_id 'a b': {ID_FORM}"),
        ("q", {"group_id": "ü"}, f"group_id 'ü': {ID_FORM}"),
        ("q", {"group_id": "x" * 129}, f"group_id '{'x' * 129}': {ID_FORM}"),
        (
            "q.fifo",
            {"group_id": "g", "deduplication_id": 5},
            f"deduplication_id 5: {ID_FORM}",
        ),
    ],
)
def test_parameters_that_sqs_would_refuse_are_errors(
    queue: str, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidCall) as caught:
        send_parameters(QueueAddress(name=queue), **given)
    assert str(caught.value) == reason


def test_size_is_checked_against_the_limit() -> None:
    check_size("x" * MAX_MESSAGE_BYTES, function="f")
    with pytest.raises(MessageTooLarge) as caught:
        check_size("x" * (MAX_MESSAGE_BYTES + 1), function="f")
    assert str(caught.value) == (
        "f: the message has 1,048,577 bytes, SQS takes at most 1,048,576; store the data elsewhere "
        "and pass its key"
    )
