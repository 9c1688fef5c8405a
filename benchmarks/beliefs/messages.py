"""Beliefs of single messages: sending, receiving, hiding, deleting."""

from __future__ import annotations

import threading
import time
from typing import Any

from .server import Server, api, expect, guide, refused

MIB = 1_048_576


def attribute(value: str | bytes, kind: str = "String") -> dict[str, Any]:
    """Return a message attribute."""
    key = "BinaryValue" if isinstance(value, bytes) else "StringValue"
    return {"DataType": kind, key: value}


# --- sending ---------------------------------------------------------------------------------


@api("SendMessage")
def body_arrives(server: Server) -> None:
    """A body arrives as it was sent, with quotes, line breaks, accents and emoji."""
    queue, body = server.queue(), '{"a": "ä €\\u0000 \U0001f600"}\r\n\t<&>'
    sent = queue.send(body)
    received = queue.one()
    expect(received["Body"] == body, "the body is another")
    expect(received["MessageId"] == sent, "the id is another")


@guide("sqs-message-metadata")
def attributes_arrive(server: Server) -> None:
    """Attributes of type String, Number and Binary arrive."""
    queue = server.queue()
    sent = {"s": attribute("x"), "n": attribute("1", "Number"), "b": attribute(b"\0\xff", "Binary")}
    queue.send(MessageAttributes=sent)
    received = queue.one().get("MessageAttributes", {})
    expect(received.keys() == sent.keys(), "some are missing")
    for name, value in sent.items():
        expect(value.items() <= received[name].items(), f"{value['DataType']} has another value")


@guide("quotas-messages")
def ten_attributes(server: Server) -> None:
    """A message has ten attributes at most."""
    queue = server.queue()
    queue.send(MessageAttributes={f"a{number}": attribute("x") for number in range(10)})
    with refused():
        queue.send(MessageAttributes={f"a{number}": attribute("x") for number in range(11)})


@guide("sqs-message-metadata")
def attribute_names(server: Server) -> None:
    """An attribute's name that has a space, or starts with "AWS.", is refused."""
    queue = server.queue()
    for name in ("a name", "AWS.name"):
        with refused(instead=f"{name!r} is taken"):
            queue.send(MessageAttributes={name: attribute("x")})


@api("SendMessage")
def largest_message(server: Server) -> None:
    """A message of 1 MiB is taken."""
    queue = server.queue()
    queue.send("x" * MIB)
    expect(len(queue.one()["Body"]) == MIB, "it arrives shortened")


@api("SendMessage")
def too_large(server: Server) -> None:
    """A message of 1 MiB and one byte is refused."""
    queue = server.queue()
    with refused():
        queue.send("x" * (MIB + 1))


@guide("quotas-messages")
def attributes_count(server: Server) -> None:
    """Its attributes count in a message's size."""
    queue = server.queue()
    with refused():
        queue.send("x" * (MIB - 5), MessageAttributes={"a": attribute("x")})


@api("SetQueueAttributes")
def queue_size(server: Server) -> None:
    """A queue may have a lower MaximumMessageSize."""
    queue = server.queue(MaximumMessageSize="1024")
    queue.send("x" * 1024)
    with refused():
        queue.send("x" * 1025)


@api("SendMessage")
def control_characters(server: Server) -> None:
    """A body with a character that XML forbids is refused with InvalidMessageContents."""
    queue = server.queue()
    with refused("InvalidMessageContents"):
        queue.send("\x01")


@api("SendMessage")
def empty_body(server: Server) -> None:
    """An empty body is refused."""
    queue = server.queue()
    with refused():
        queue.send("")


@api("SendMessage")
def delay_limit(server: Server) -> None:
    """A DelaySeconds of 900 is taken, and 901 is refused."""
    queue = server.queue()
    queue.send(DelaySeconds=900)
    with refused():
        queue.send(DelaySeconds=901)


@guide("sqs-message-timers")
def delay(server: Server) -> None:
    """A message with a delay is hidden until the delay is over."""
    queue = server.queue()
    queue.send(DelaySeconds=3)
    expect(queue.has_none(), "it arrives at once")
    queue.one()


@guide("sqs-fair-queues")
def fair_queues(server: Server) -> None:
    """A standard queue takes a MessageGroupId, and hands it out."""
    queue = server.queue()
    queue.send(MessageGroupId="tenant")
    expect(queue.one()["Attributes"].get("MessageGroupId") == "tenant", "it is not handed out")


@guide("sqs-fair-queues")
def fair_queues_hold_nothing_back(server: Server) -> None:
    """On a standard queue a message in flight holds nothing of its group back."""
    queue = server.queue()
    for _ in range(2):
        queue.send(MessageGroupId="tenant")
    first, second = queue.receive_all(2, at_most=1)
    expect(first["MessageId"] != second["MessageId"], "one message arrives twice")


@api("SendMessage")
def no_deduplication(server: Server) -> None:
    """A standard queue refuses a MessageDeduplicationId."""
    queue = server.queue()
    with refused():
        queue.send(MessageDeduplicationId="x")


# --- receiving -------------------------------------------------------------------------------


@api("ReceiveMessage")
def system_attributes(server: Server) -> None:
    """A message has SentTimestamp and ApproximateFirstReceiveTimestamp in milliseconds, SenderId,
    and an ApproximateReceiveCount of 1."""
    queue = server.queue()
    queue.send()
    found = queue.one()["Attributes"]
    now = time.time() * 1000
    for name in ("SentTimestamp", "ApproximateFirstReceiveTimestamp"):
        expect(abs(float(found.get(name, 0)) - now) < 600_000, f"{name} is {found.get(name)}")
    expect(found.get("SenderId"), "no SenderId")
    expect(found.get("ApproximateReceiveCount") == "1", "another count")


@api("ReceiveMessage")
def receive_count(server: Server) -> None:
    """Each receive raises ApproximateReceiveCount by one, and leaves the time of the first."""
    queue = server.queue()
    queue.send()
    facts = [queue.one(visibility=0)["Attributes"] for _ in range(3)]
    counts = [each["ApproximateReceiveCount"] for each in facts]
    expect(counts == ["1", "2", "3"], f"the counts are {', '.join(counts)}")
    expect(len({each["ApproximateFirstReceiveTimestamp"] for each in facts}) == 1, "the time moves")


@api("ReceiveMessage")
def at_most_ten(server: Server) -> None:
    """A receive brings ten messages at most; to ask for 11 is refused."""
    queue = server.queue()
    with refused():
        queue.receive(at_most=11)


@api("ReceiveMessage")
def wait_limit(server: Server) -> None:
    """A WaitTimeSeconds of 21 is refused."""
    queue = server.queue()
    queue.send()
    with refused():
        queue.receive(wait=21)


@guide("sqs-short-and-long-polling")
def long_poll_waits(server: Server) -> None:
    """A long poll of an empty queue takes its whole time."""
    queue = server.queue()
    started = time.monotonic()
    expect(queue.has_none(wait=2), "a message arrives that nobody has sent")
    seconds = time.monotonic() - started
    expect(seconds > 1.8, f"it takes {seconds:.1f} s of 2")


@guide("sqs-short-and-long-polling")
def long_poll_ends(server: Server) -> None:
    """A long poll ends when a message arrives."""
    queue = server.queue()
    timer = threading.Timer(1, queue.send)
    timer.start()
    started = time.monotonic()
    received = queue.receive(wait=10)
    timer.join()
    expect(received, "it brings nothing")
    expect(time.monotonic() - started < 7, "it takes its whole time")


# --- hiding ----------------------------------------------------------------------------------


@guide("sqs-visibility-timeout")
def hidden(server: Server) -> None:
    """A received message is hidden until its visibility timeout is over."""
    queue = server.queue()
    queue.send()
    queue.one(visibility=3)
    expect(queue.has_none(), "it arrives again at once")
    queue.one()


@api("ChangeMessageVisibility")
def visible_at_once(server: Server) -> None:
    """A visibility timeout of 0 makes a message visible at once."""
    queue = server.queue()
    queue.send()
    queue.change_message_visibility(ReceiptHandle=queue.one()["ReceiptHandle"], VisibilityTimeout=0)
    started = time.monotonic()
    queue.one()
    expect(time.monotonic() - started < 10, "it takes its time")


@api("ChangeMessageVisibility")
def heartbeat(server: Server) -> None:
    """A new visibility timeout counts from now, and replaces the old one."""
    queue = server.queue()
    queue.send()
    receipt = queue.one(visibility=2)["ReceiptHandle"]
    queue.change_message_visibility(ReceiptHandle=receipt, VisibilityTimeout=60)
    time.sleep(2.5)
    expect(queue.has_none(), "the old one has ended")
    queue.change_message_visibility(ReceiptHandle=receipt, VisibilityTimeout=1)
    queue.one()


@api("ChangeMessageVisibility")
def longest_visibility(server: Server) -> None:
    """A visibility timeout of more than 12 hours is refused."""
    queue = server.queue()
    queue.send()
    receipt = queue.one()["ReceiptHandle"]
    with refused():
        queue.change_message_visibility(ReceiptHandle=receipt, VisibilityTimeout=43_201)


@api("ChangeMessageVisibility")
def not_in_flight(server: Server) -> None:
    """The visibility of a message that is not in flight cannot be changed."""
    queue = server.queue()
    queue.send()
    received = queue.one(visibility=1)
    time.sleep(1.5)
    with refused():
        queue.change_message_visibility(
            ReceiptHandle=received["ReceiptHandle"], VisibilityTimeout=30
        )


@api("ChangeMessageVisibility")
def foreign_receipt(server: Server) -> None:
    """A receipt handle that SQS has not made is refused with ReceiptHandleIsInvalid."""
    queue = server.queue()
    with refused("ReceiptHandleIsInvalid"):
        queue.delete_message(ReceiptHandle="no-receipt")
    with refused("ReceiptHandleIsInvalid"):
        queue.change_message_visibility(ReceiptHandle="no-receipt", VisibilityTimeout=0)


# --- deleting --------------------------------------------------------------------------------


@api("DeleteMessage")
def deleted(server: Server) -> None:
    """A deleted message does not come back, and may be deleted again."""
    queue = server.queue()
    queue.send()
    received = queue.one(visibility=1)
    queue.delete(received)
    queue.delete(received)
    time.sleep(1.5)
    expect(queue.has_none(), "it comes back")


@api("DeleteMessage")
def last_receipt_deletes(server: Server) -> None:
    """The last receipt handle deletes a message that was received more than once."""
    queue = server.queue()
    queue.send()
    queue.one(visibility=0)
    queue.delete(queue.one(visibility=1))
    time.sleep(1.5)
    expect(queue.has_none(), "it comes back")


@api("DeleteMessage")
def old_receipt(server: Server) -> None:
    """An older receipt handle is answered with success, whether it deletes the message or not."""
    queue = server.queue()
    queue.send()
    old = queue.one(visibility=0)
    queue.one()
    queue.delete(old)


# --- purging ---------------------------------------------------------------------------------


@api("PurgeQueue")
def purge(server: Server) -> None:
    """A purge deletes what waits and what is in flight."""
    queue = server.queue()
    for _ in range(3):
        queue.send()
    queue.one(at_most=1, visibility=1)
    queue.purge_queue()
    time.sleep(1.5)
    server.until(queue.has_none, "messages come back")


@api("PurgeQueue")
def one_purge_a_minute(server: Server) -> None:
    """A second purge within 60 seconds is refused with PurgeQueueInProgress."""
    queue = server.queue()
    queue.purge_queue()
    with refused("PurgeQueueInProgress"):
        queue.purge_queue()
