"""Beliefs of FIFO queues: order, groups, deduplication."""

from __future__ import annotations

from .batches import entries
from .server import Server, api, expect, guide, refused


@guide("FIFO-queues-understanding-logic")
def order(server: Server) -> None:
    """Messages of one group arrive in the order in which they were sent."""
    queue = server.queue(fifo=True)
    sent = [str(number) for number in range(12)]
    queue.send_group("a", *sent)
    received = []
    for _ in sent:
        message = queue.one(at_most=1)
        received.append(message["Body"])
        queue.delete(message)
    expect(received == sent, f"they arrive as {' '.join(received)}")


@guide("FIFO-queues-understanding-logic")
def many_of_a_group(server: Server) -> None:
    """One receive brings several messages of a group, in their order."""
    queue = server.queue(fifo=True)
    queue.send_group("a", "1", "2", "3")
    received = [each["Body"] for each in queue.receive()]
    expect(len(received) > 1, "it brings one")
    expect(received == sorted(received), "in another order")


@guide("FIFO-queues-understanding-logic")
def group_is_held_back(server: Server) -> None:
    """While a message is in flight, no other of its group is delivered."""
    queue = server.queue(fifo=True)
    queue.send_group("a", "1", "2")
    queue.one(at_most=1)
    expect(queue.has_none(), "the next is delivered")


@guide("FIFO-queues-understanding-logic")
def other_groups_go_on(server: Server) -> None:
    """While a message of a group is in flight, those of other groups are delivered."""
    queue = server.queue(fifo=True)
    queue.send_group("a", "a1", "a2")
    queue.send_group("b", "b1")
    bodies = {queue.one(at_most=1)["Body"] for _ in range(2)}
    expect(bodies == {"a1", "b1"}, f"{' and '.join(sorted(bodies))} are delivered")


@guide("FIFO-queues-understanding-logic")
def next_after_delete(server: Server) -> None:
    """When the head of a group is deleted, the next of its group is delivered."""
    queue = server.queue(fifo=True)
    queue.send_group("a", "1", "2")
    queue.delete(queue.one(at_most=1))
    expect(queue.one(at_most=1)["Body"] == "2", "another is delivered")


@guide("FIFO-queues-understanding-logic")
def head_comes_back_first(server: Server) -> None:
    """The head of a group that becomes visible again is delivered before those behind it."""
    queue = server.queue(fifo=True)
    queue.send_group("a", "1", "2")
    receipt = queue.one(at_most=1)["ReceiptHandle"]
    queue.change_message_visibility(ReceiptHandle=receipt, VisibilityTimeout=1)
    expect(queue.one(at_most=1)["Body"] == "1", "the next is delivered")


@api("ReceiveMessage")
def fifo_attributes(server: Server) -> None:
    """A message has its MessageGroupId, MessageDeduplicationId and SequenceNumber."""
    queue = server.queue(fifo=True)
    queue.send(MessageGroupId="a", MessageDeduplicationId="d")
    found = queue.one()["Attributes"]
    expect(found.get("MessageGroupId") == "a", "no MessageGroupId")
    expect(found.get("MessageDeduplicationId") == "d", "no MessageDeduplicationId")
    expect(found.get("SequenceNumber"), "no SequenceNumber")


@api("SendMessage")
def group_is_required(server: Server) -> None:
    """A message without a MessageGroupId is refused."""
    queue = server.queue(fifo=True)
    with refused():
        queue.send(MessageDeduplicationId="d")


@api("SendMessage")
def deduplication_is_required(server: Server) -> None:
    """A message without a MessageDeduplicationId is refused, unless it is made of the content."""
    with refused():
        server.queue(fifo=True).send(MessageGroupId="a")
    server.queue(fifo=True, ContentBasedDeduplication="true").send(MessageGroupId="a")


@guide("using-messagededuplicationid-property")
def deduplication(server: Server) -> None:
    """A second message with the same MessageDeduplicationId is taken, and not delivered."""
    queue = server.queue(fifo=True)
    for body in ("first", "second"):
        queue.send(body, MessageGroupId="a", MessageDeduplicationId="d")
    message = queue.one()
    expect(message["Body"] == "first", "the second is delivered")
    queue.delete(message)
    expect(queue.has_none(), "both are delivered")


@guide("using-messagededuplicationid-property")
def deduplication_outlives_the_message(server: Server) -> None:
    """A MessageDeduplicationId holds for five minutes, also when its message is deleted."""
    queue = server.queue(fifo=True)
    queue.send(MessageGroupId="a", MessageDeduplicationId="d")
    queue.delete(queue.one())
    queue.send(MessageGroupId="a", MessageDeduplicationId="d")
    expect(queue.has_none(), "it is delivered again")


@api("SendMessage")
def no_delay(server: Server) -> None:
    """A message for a FIFO queue may have no delay of its own."""
    queue = server.queue(fifo=True)
    with refused():
        queue.send(MessageGroupId="a", MessageDeduplicationId="d", DelaySeconds=1)


@api("SendMessage")
def group_id_form(server: Server) -> None:
    """A MessageGroupId of more than 128 characters, or with a space, is refused."""
    queue = server.queue(fifo=True)
    for group, what in (("x" * 129, "129 characters are"), ("a b", "a space is")):
        with refused(instead=f"{what} taken"):
            queue.send(MessageGroupId=group, MessageDeduplicationId="d")


@api("SendMessageBatch")
def batch_order(server: Server) -> None:
    """A batch keeps its order."""
    queue = server.queue(fifo=True, ContentBasedDeduplication="true")
    queue.send_message_batch(Entries=entries(10, MessageGroupId="a"))
    received: list[str] = []
    while len(received) < 10:
        message = queue.one(at_most=1)
        received.append(message["Body"])
        queue.delete(message)
    expect(received == sorted(received), f"they arrive as {' '.join(received)}")


@api("CreateQueue")
def fifo_suffix(server: Server) -> None:
    """The name of a FIFO queue ends with ".fifo"."""
    with refused():
        server.queue(FifoQueue="true")
