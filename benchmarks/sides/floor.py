"""The floor of a producer: a signature by hand, over one connection of http.client.

It has no retries, no refreshed credentials, no proxies and no errors. Nothing that has them can
send with fewer instructions.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Callable
from typing import Any

from .raw import body
from .tasks import ENDPOINT, KEY, REGION, SECRET, URL

DISTRIBUTIONS: list[str] = []
HOST = ENDPOINT.removeprefix("http://")


def signing_key(day: str) -> bytes:
    key = f"AWS4{SECRET}".encode()
    for part in (day, REGION, "sqs", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class Sender:
    """Signs requests as AWS documents it, with a key that is derived once a day.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(self) -> None:
        self.connection = http.client.HTTPConnection(HOST, timeout=10)
        self.day, self.key = "", b""

    def send(self, operation: str, parameters: dict[str, Any]) -> Any:
        content = json.dumps(parameters).encode()
        target = f"AmazonSQS.{operation}"
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        day = moment[:8]
        if day != self.day:
            self.day, self.key = day, signing_key(day)
        canonical = (
            f"POST\n/\n\ncontent-type:application/x-amz-json-1.0\nhost:{HOST}\nx-amz-date:{moment}\n"
            f"x-amz-target:{target}\n\ncontent-type;host;x-amz-date;x-amz-target\n"
            f"{hashlib.sha256(content).hexdigest()}"
        )
        scope = f"{day}/{REGION}/sqs/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        signature = hmac.digest(self.key, to_sign.encode(), "sha256").hex()
        self.connection.request("POST", "/", content, {
            "Content-Type": "application/x-amz-json-1.0", "X-Amz-Date": moment,
            "X-Amz-Target": target,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders="
            f"content-type;host;x-amz-date;x-amz-target, Signature={signature}",
        })  # fmt: skip
        return json.loads(self.connection.getresponse().read())


def operations() -> dict[str, Callable[..., Any]]:
    sender = Sender()

    def one(count: int) -> None:
        for number in range(count):
            sender.send("SendMessage", {"QueueUrl": URL, "MessageBody": body(number)})

    def many(count: int) -> None:
        for start in range(0, count, 10):
            numbers = range(start, min(start + 10, count))
            entries = [{"Id": str(n), "MessageBody": body(n)} for n in numbers]
            sender.send("SendMessageBatch", {"QueueUrl": URL, "Entries": entries})

    return {"one": one, "many": many}
