"""Beliefs of batches: their limits, and that one entry may fail alone."""

from __future__ import annotations

import time
from typing import Any

from .messages import MIB
from .server import Queue, Server, api, expect, guide, refused


def entries(count: int, **more: Any) -> list[dict[str, Any]]:
    """Return entries of a SendMessageBatch."""
    return [{"Id": str(number), "MessageBody": f"body-{number}", **more} for number in range(count)]


def expect_failed(answer: dict[str, Any], code: str = "") -> None:
    """Raise Differs unless the entry "bad" has failed alone, by the sender's fault."""
    failed = answer.get("Failed", [])
    expect([each["Id"] for each in failed] == ["bad"], "it does not fail")
    expect([each["Id"] for each in answer.get("Successful", [])] == ["good"], "the other fails too")
    expect(failed[0]["SenderFault"], "SenderFault is false")
    expect(failed[0]["Code"].endswith(code), f"the code is {failed[0]['Code']}")


@api("SendMessageBatch")
def ten_entries(server: Server) -> None:
    """A batch of ten messages is sent, and all of them arrive."""
    queue = server.queue()
    answer = queue.send_message_batch(Entries=entries(10))
    expect(len(answer.get("Successful", [])) == 10, "some fail")
    bodies = {each["Body"] for each in queue.receive_all(10)}
    expect(bodies == {f"body-{number}" for number in range(10)}, "others arrive")


@api("SendMessageBatch")
def eleven_entries(server: Server) -> None:
    """A batch of 11 entries is refused with TooManyEntriesInBatchRequest."""
    queue = server.queue()
    with refused("TooManyEntriesInBatchRequest"):
        queue.send_message_batch(Entries=entries(11))


@api("SendMessageBatch")
def no_entries(server: Server) -> None:
    """A batch without entries is refused with EmptyBatchRequest."""
    queue = server.queue()
    with refused("EmptyBatchRequest"):
        queue.send_message_batch(Entries=[])


@api("SendMessageBatch")
def same_ids(server: Server) -> None:
    """A batch in which two entries have one Id is refused with BatchEntryIdsNotDistinct."""
    queue = server.queue()
    with refused("BatchEntryIdsNotDistinct"):
        queue.send_message_batch(Entries=entries(1) * 2)


@api("SendMessageBatch")
def batch_size(server: Server) -> None:
    """A batch of more than 1 MiB is refused with BatchRequestTooLong."""
    queue = server.queue()
    with refused("BatchRequestTooLong"):
        queue.send_message_batch(Entries=entries(2, MessageBody="x" * (MIB // 2 + 1)))


@api("SendMessageBatch")
def one_send_fails(server: Server) -> None:
    """A message of a batch whose delay is too long fails alone, and the others are sent."""
    queue = server.queue()
    bad = {"Id": "bad", "MessageBody": "x", "DelaySeconds": 901}
    expect_failed(queue.send_message_batch(Entries=[{"Id": "good", "MessageBody": "x"}, bad]))
    queue.one()


@api("SendMessageBatch")
def one_body_fails(server: Server) -> None:
    """A message of a batch whose body XML forbids fails alone, with InvalidMessageContents."""
    queue = server.queue()
    bad = {"Id": "bad", "MessageBody": "\x01"}
    answer = queue.send_message_batch(Entries=[{"Id": "good", "MessageBody": "x"}, bad])
    expect_failed(answer, "InvalidMessageContents")


def good_and_bad(queue: Queue, **more: int) -> list[dict[str, Any]]:
    """Return an entry for a received message, and one whose receipt handle SQS has not made."""
    queue.send()
    receipts = {"good": queue.one(visibility=2)["ReceiptHandle"], "bad": "no-receipt"}
    return [{"Id": each, "ReceiptHandle": receipt, **more} for each, receipt in receipts.items()]


@api("DeleteMessageBatch")
def one_delete_fails(server: Server) -> None:
    """A delete of a batch with a wrong receipt handle fails alone, with ReceiptHandleIsInvalid."""
    queue = server.queue()
    answer = queue.delete_message_batch(Entries=good_and_bad(queue))
    expect_failed(answer, "ReceiptHandleIsInvalid")
    time.sleep(2)
    expect(queue.has_none(), "the other comes back")


@api("ChangeMessageVisibilityBatch")
def one_change_fails(server: Server) -> None:
    """A change of visibility with a wrong receipt handle fails alone, with
    ReceiptHandleIsInvalid."""
    queue = server.queue()
    answer = queue.change_message_visibility_batch(Entries=good_and_bad(queue, VisibilityTimeout=0))
    expect_failed(answer, "ReceiptHandleIsInvalid")
    queue.one()


@api("ChangeMessageVisibilityBatch")
def own_visibilities(server: Server) -> None:
    """Each entry of a ChangeMessageVisibilityBatch has its own visibility timeout."""
    queue = server.queue()
    queue.send_message_batch(Entries=entries(2))
    first, second = queue.receive_all(2)
    queue.change_message_visibility_batch(
        Entries=[
            {
                "Id": str(seconds),
                "ReceiptHandle": each["ReceiptHandle"],
                "VisibilityTimeout": seconds,
            }
            for seconds, each in ((0, first), (60, second))
        ]
    )
    expect(queue.one()["MessageId"] == first["MessageId"], "the other arrives")
    expect(queue.has_none(), "both arrive")


@guide("quotas-messages")
def entry_ids(server: Server) -> None:
    """An entry's Id of more than 80 characters is refused."""
    queue = server.queue()
    with refused():
        queue.send_message_batch(Entries=entries(1, Id="x" * 81))
