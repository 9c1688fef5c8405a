"""A consumer for the tests: runs what is on a queue, in this thread, until the queue is empty."""

from __future__ import annotations

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.sqs.opening import open_queue
from tests.runs import deliver


def run_all(alias: str = "jobs", *, deliveries: int = 20) -> list[Outcome]:
    """What became of each delivery. A message that was not acknowledged is delivered again."""
    queue, outcomes = open_queue(alias), []
    while received := queue.receive(count=1, wait=0, visibility=60):
        (message,) = received
        delivery = Delivery(
            queue=queue.name, message_id=message.message_id, receive_count=message.receive_count
        )
        result = deliver(message.body, delivery)
        outcomes.append(result.outcome)
        if result.is_acknowledged:
            assert queue.delete_batch(received) == []
        else:
            queue.change_visibility_batch(received, [0])
        if len(outcomes) == deliveries:
            break
    return outcomes
