"""Beliefs of queues: their attributes, their dead letters, and moving these back."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from .messages import attribute
from .server import MISSING_QUEUE, Differs, Queue, Server, api, expect, guide, refused

RECEIVES = 2


@api("CreateQueue")
def create_twice(server: Server) -> None:
    """To create a queue again gives the same URL."""
    queue = server.queue(VisibilityTimeout="40")
    made = server.client.create_queue(QueueName=queue.name, Attributes={"VisibilityTimeout": "40"})
    expect(made["QueueUrl"] == queue.url, "the URL is another")


@api("CreateQueue")
def create_otherwise(server: Server) -> None:
    """To create a queue again with other attributes is refused."""
    queue = server.queue(VisibilityTimeout="40")
    with refused("QueueAlreadyExists", "QueueNameExists"):
        server.client.create_queue(QueueName=queue.name, Attributes={"VisibilityTimeout": "41"})


@api("GetQueueUrl")
def find_queue(server: Server) -> None:
    """A queue is found by its name, and its URL ends with the name."""
    queue = server.queue()
    url = server.client.get_queue_url(QueueName=queue.name)["QueueUrl"]
    expect(url == queue.url, "the URL is another")
    expect(url.endswith(f"/{queue.name}"), "the URL ends otherwise")


@api("GetQueueUrl")
def missing_queue(server: Server) -> None:
    """A queue that does not exist is refused with QueueDoesNotExist, or NonExistentQueue."""
    with refused(*MISSING_QUEUE):
        server.client.get_queue_url(QueueName=f"{server.prefix}-none")
    queue = server.queue()
    with refused(*MISSING_QUEUE):
        missing = Queue(server, "none", queue.url.replace(queue.name, f"{queue.name}-none"))
        missing.send()


@api("GetQueueAttributes")
def arn(server: Server) -> None:
    """QueueArn names the region, the account and the queue."""
    queue = server.queue()
    parts = queue.attribute("QueueArn").split(":")
    expect(len(parts) == 6 and parts[0] == "arn" and parts[2] == "sqs", f"it is {parts}")
    expect(parts[3] == server.client.meta.region_name, f"the region is {parts[3]}")
    expect(parts[4].isdigit() and parts[5] == queue.name, "the rest is another")


@api("GetQueueAttributes")
def counts(server: Server) -> None:
    """The counts of visible, hidden and delayed messages are right after a minute at most."""
    queue = server.queue()
    for _ in range(3):
        queue.send()
    queue.send(DelaySeconds=600)
    queue.receive_all(1, at_most=1, visibility=600)
    names = ("Messages", "MessagesNotVisible", "MessagesDelayed")
    found: list[str] = []
    for _ in server.patiently():
        found = [queue.attribute(f"ApproximateNumberOf{name}") for name in names]
        if found == ["2", "1", "1"]:
            return
    expect(False, f"they are {', '.join(found)}, not 2, 1, 1")


@api("SetQueueAttributes")
def default_visibility(server: Server) -> None:
    """A receive without a VisibilityTimeout hides a message for that of the queue."""
    queue = server.queue(VisibilityTimeout="1")
    queue.send()
    queue.receive_message(WaitTimeSeconds=2)
    time.sleep(1.5)
    queue.one()


@api("DeleteQueue")
def deleted_queue(server: Server) -> None:
    """A deleted queue is gone after a minute at most."""
    queue = server.queue()
    queue.delete_queue()

    def is_gone() -> bool:
        with suppress(Differs), refused(*MISSING_QUEUE):
            queue.send()
            return False
        return True

    server.until(is_gone, "it takes messages")


# --- dead letters ----------------------------------------------------------------------------


def with_dead_letters(server: Server, *, fifo: bool = False) -> tuple[Queue, Queue]:
    """Return a queue, and the queue to which SQS moves what was received too often."""
    queue, dead = server.queue(fifo=fifo), server.queue(fifo=fifo)
    queue.redrive_to(dead, after=RECEIVES)
    return queue, dead


def dead_letter(queue: Queue, dead: Queue) -> dict[str, Any]:
    """Receive the only message of a queue until it is a dead letter, and return that."""
    for _ in range(RECEIVES):
        queue.one(visibility=0)
    expect(queue.has_none(), f"it is delivered {RECEIVES + 1} times")
    return dead.one(visibility=0)


@guide("sqs-dead-letter-queues")
def redrive(server: Server) -> None:
    """A message that was received maxReceiveCount times is moved to the dead-letter queue."""
    queue, dead = with_dead_letters(server)
    queue.send()
    dead_letter(queue, dead)


@guide("sqs-dead-letter-queues")
def redrive_keeps(server: Server) -> None:
    """A dead letter keeps its id, body, attributes and SentTimestamp."""
    queue, dead = with_dead_letters(server)
    sent = queue.send("the body", MessageAttributes={"a": attribute("x")})
    before = queue.one(visibility=0)
    queue.one(visibility=0)
    expect(queue.has_none(), f"it is delivered {RECEIVES + 1} times")
    letter = dead.one()
    expect(letter["MessageId"] == sent, "the id is another")
    expect(letter["Body"] == "the body", "the body is another")
    expect("a" in letter.get("MessageAttributes", {}), "the attributes are lost")
    times = [each["Attributes"]["SentTimestamp"] for each in (before, letter)]
    expect(times[0] == times[1], "SentTimestamp is another")


@api("ReceiveMessage")
def redrive_names_the_source(server: Server) -> None:
    """A dead letter has DeadLetterQueueSourceArn."""
    queue, dead = with_dead_letters(server)
    queue.send()
    found = dead_letter(queue, dead)["Attributes"].get("DeadLetterQueueSourceArn")
    expect(found == queue.attribute("QueueArn"), f"it is {found}")


@guide("sqs-dead-letter-queues")
def redrive_of_a_group(server: Server) -> None:
    """When the head of a FIFO group is a dead letter, the next of its group is delivered."""
    queue, dead = with_dead_letters(server, fifo=True)
    queue.send_group("a", "1", "2")
    for _ in range(RECEIVES):
        expect(queue.one(at_most=1, visibility=0)["Body"] == "1", "the next is delivered before")
    expect(queue.one(at_most=1)["Body"] == "2", "it is delivered once more")
    expect(dead.one()["Body"] == "1", "another is the dead letter")


@api("ListDeadLetterSourceQueues")
def sources(server: Server) -> None:
    """A dead-letter queue lists the queues whose messages it gets."""
    queue, dead = with_dead_letters(server)

    def is_listed() -> bool:
        return bool(dead.list_dead_letter_source_queues().get("queueUrls") == [queue.url])

    server.until(is_listed, "it is not listed")


# --- moving dead letters back ----------------------------------------------------------------


def move(server: Server, dead: Queue, **more: Any) -> dict[str, Any]:
    """Have SQS move the dead letters back, and return its last word of that."""
    source = dead.attribute("QueueArn")
    server.client.start_message_move_task(SourceArn=source, **more)
    tasks: list[dict[str, Any]] = []
    for _ in server.patiently():
        tasks = server.client.list_message_move_tasks(SourceArn=source).get("Results", [])
        if tasks and tasks[0]["Status"] != "RUNNING":
            return tasks[0]
    expect(False, "the move does not end")
    return {}


@api("StartMessageMoveTask")
def move_back(server: Server) -> None:
    """A move task moves dead letters to where they came from."""
    queue, dead = with_dead_letters(server)
    queue.send("the body")
    dead_letter(queue, dead)
    task = move(server, dead)
    expect(task["Status"] == "COMPLETED", f"its status is {task['Status']}")
    expect(queue.one()["Body"] == "the body", "the body is another")
    expect(dead.has_none(), "it is still there")


@api("ListMessageMoveTasks")
def move_counts(server: Server) -> None:
    """A move task says how many messages it has moved."""
    queue, dead = with_dead_letters(server)
    queue.send()
    dead_letter(queue, dead)
    moved = move(server, dead).get("ApproximateNumberOfMessagesMoved")
    expect(moved == 1, f"it says {moved}")


@guide("sqs-configure-dead-letter-queue-redrive")
def moved_is_new(server: Server) -> None:
    """A message that was moved back has a new id, and its receives are counted from one again."""
    queue, dead = with_dead_letters(server)
    sent = queue.send()
    dead_letter(queue, dead)
    move(server, dead)
    message = queue.one()
    expect(message["MessageId"] != sent, "the id is the same")
    expect(message["Attributes"]["ApproximateReceiveCount"] == "1", "the count continues")


@api("StartMessageMoveTask")
def move_elsewhere(server: Server) -> None:
    """A move task may have another destination."""
    queue, dead = with_dead_letters(server)
    queue.send()
    dead_letter(queue, dead)
    other = server.queue()
    move(server, dead, DestinationArn=other.attribute("QueueArn"))
    other.one()


@api("StartMessageMoveTask")
def move_of_no_dead_letters(server: Server) -> None:
    """A move task from a queue that is not a dead-letter queue is refused."""
    queue = server.queue()
    with refused():
        server.client.start_message_move_task(SourceArn=queue.attribute("QueueArn"))


@api("StartMessageMoveTask")
def move_rate(server: Server) -> None:
    """A move task of more than 500 messages a second is refused."""
    _, dead = with_dead_letters(server)
    with refused():
        server.client.start_message_move_task(
            SourceArn=dead.attribute("QueueArn"), MaxNumberOfMessagesPerSecond=501
        )
