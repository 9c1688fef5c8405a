"""Receives are a budget: SQS moves no message to the dead-letter queue that was never tried."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace

from beanstalk_dispatch.consumers.poller.in_flight import Ack, Nack
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.parameters import send_parameters
from beanstalk_dispatch.sqs.queue import Received
from tests.conftest import Environment
from tests.workers import ACK, TIMES, Recording, running, send, until


def limit_receives(max_receives: int) -> None:
    """Have SQS move messages of the queue ``jobs`` away after ``max_receives`` receives."""
    jobs, dead = open_queue("jobs"), open_queue("dead")
    arn = dead.client.get_queue_attributes(QueueUrl=dead.url, AttributeNames=["QueueArn"])[
        "Attributes"
    ]["QueueArn"]
    policy = {"deadLetterTargetArn": arn, "maxReceiveCount": str(max_receives)}
    jobs.client.set_queue_attributes(
        QueueUrl=jobs.url, Attributes={"RedrivePolicy": json.dumps(policy)}
    )


def dead_letters() -> int:
    return open_queue("dead").depth() or 0


def test_bursts_of_short_and_long_tasks_lose_no_message(
    sqs_env: Environment, queue_name: str
) -> None:
    """Tasks of 1 ms and 350 ms; what is received ahead is requeued after 250 ms."""
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name} dead={queue_name}-dead")
    limit_receives(3)
    short = [f"short-{number}" for number in range(140)]
    long = [f"long-{number}" for number in range(56)]
    send(*short[:60])

    def answer(received: Received) -> Ack:
        time.sleep(0.35 if received.body.startswith("long") else 0.001)
        return ACK

    runner = Recording(answer)
    times = replace(TIMES, requeue_after=0.25, no_prefetch_after=3.0)
    with running(runner, threads=4, times=times) as worker:
        for burst in range(4):
            until(lambda: worker.counters.waiting == 0 == worker.counters.running)
            send(*long[burst::4], *short[60 + burst :: 4])
        until(lambda: worker.counters.done == 196)
    assert dead_letters() == 0
    assert Counter(runner.bodies) == Counter(short + long)


def test_a_poison_message_takes_none_of_its_group_along(
    sqs_env: Environment, queue_name: str
) -> None:
    """Its seven neighbours run after it is gone, in their order, each as a first attempt."""
    sqs_env(DISPATCH_QUEUES=f"jobs={queue_name}.fifo dead={queue_name}-dead.fifo")
    limit_receives(3)
    jobs = open_queue("jobs")
    bodies = ["poison", *(f"good-{number}" for number in range(7))]
    for body in bodies:
        jobs.send(body, send_parameters(jobs.address, group_id="a", message_id=body))
    earlier: list[int] = []

    def answer(received: Received) -> Ack | Nack:
        if received.body == "poison":
            return Nack(0)
        earlier.append(received.receive_count - 1 - received.unrun_receives)
        return ACK

    runner = Recording(answer)
    with running(runner) as worker:
        until(lambda: worker.counters.done == 7)
    assert runner.bodies == ["poison"] * 3 + bodies[1:]
    assert earlier == [0] * 7
    assert dead_letters() == 1
