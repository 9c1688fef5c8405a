"""The baseline of a consumer: receive ten, call the task for each, delete the batch; in threads.

``python -m benchmarks.sides.hand_loop THREADS`` runs until it is stopped.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import boto3

from .tasks import ENDPOINT, KEY, REGION, SECRET, TASKS, URL


def loop(client: Any) -> None:
    while True:
        received = client.receive_message(QueueUrl=URL, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        messages = received.get("Messages", [])
        for message in messages:
            content = json.loads(message["Body"])
            TASKS[content["function"]](*content["args"], **content["kwargs"])
        if messages:
            client.delete_message_batch(QueueUrl=URL, Entries=[
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ])  # fmt: skip


def main() -> None:
    client = boto3.client(
        "sqs", endpoint_url=ENDPOINT, region_name=REGION,
        aws_access_key_id=KEY, aws_secret_access_key=SECRET,
    )  # fmt: skip
    threads = [threading.Thread(target=loop, args=(client,)) for _ in range(int(sys.argv[1]))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


if __name__ == "__main__":
    main()
