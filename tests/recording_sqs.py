"""An SQS that shows what it got, and refuses what a test wants to be refused."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

from tests.proxy import Answer, error

Entry = dict[str, Any]


class Sqs:
    """The ``spoil`` of a proxy that answers by itself. Messages show their first argument."""

    def __init__(self) -> None:
        self.requests: list[list[Entry]] = []
        """The entries of each request that was answered."""
        self.entries: list[Entry] = []
        """What SQS has taken, in order."""
        self.is_down = False
        """Every request fails."""
        self.failure: Answer | None = None
        """What every request to send is answered, if anything."""
        self.refuses_entry: Callable[[Any], bool] = lambda label: False
        """Whether SQS refuses the message with this first argument."""
        self.refuses_request: Callable[[Any], bool] = lambda label: False
        """Whether SQS refuses the request that has this message."""

    def __call__(self, operation: str, request: dict[str, Any]) -> Answer:
        if self.is_down:
            return error(503, "ServiceUnavailable")
        if operation == "GetQueueUrl":
            return 200, {"QueueUrl": f"http://127.0.0.1:9/0/{request['QueueName']}"}
        if self.failure:
            return self.failure
        if operation == "SendMessage":
            self.requests.append([request])
            self.entries.append(request)
            return 200, sent(request | {"Id": "0"})
        entries = request["Entries"]
        if any(self.refuses_request(label(each)) for each in entries):
            return error(400, "InvalidMessageContents")
        self.requests.append(entries)
        refused = [each for each in entries if self.refuses_entry(label(each))]
        taken = [each for each in entries if each not in refused]
        self.entries += taken
        return 200, {
            "Successful": [sent(each) for each in taken],
            "Failed": [
                {"Id": each["Id"], "SenderFault": True, "Code": "Refused"} for each in refused
            ],
        }

    @property
    def labels(self) -> list[Any]:
        return [label(entry) for entry in self.entries]


def label(entry: Entry) -> Any:
    return body_of(entry)["args"][0]


def body_of(entry: Entry) -> dict[str, Any]:
    body: dict[str, Any] = json.JSONDecoder().raw_decode(entry["MessageBody"])[0]
    return body


def sent(entry: Entry) -> dict[str, str]:
    md5 = hashlib.md5(entry["MessageBody"].encode(), usedforsecurity=False).hexdigest()
    return {"Id": entry["Id"], "MessageId": str(uuid.uuid4()), "MD5OfMessageBody": md5}
