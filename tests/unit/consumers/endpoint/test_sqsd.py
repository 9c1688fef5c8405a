from __future__ import annotations

import time

import pytest

from beanstalk_dispatch.consumers.endpoint.sqsd import delivery_from_meta, headers_of
from beanstalk_dispatch.messages.delivery import Delivery

HEADERS = {
    "X-Aws-Sqsd-Msgid": "1ce49a2f",
    "X-Aws-Sqsd-Queue": "awseb-e-queue",
    "X-Aws-Sqsd-Receive-Count": "3",
    "X-Aws-Sqsd-First-Received-At": "2023-08-15T13:57:53Z",
    "X-Aws-Sqsd-Sent-At": "2023-08-15T13:57:50Z",
    "X-Aws-Sqsd-Taskname": "clean_up",
    "X-Aws-Sqsd-Scheduled-At": "2023-08-15T13:55:00Z",
}


def from_headers(headers: dict[str, str]) -> Delivery:
    meta = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    return delivery_from_meta(meta)


def test_the_daemons_headers_are_read() -> None:
    assert from_headers(HEADERS) == Delivery(
        queue="awseb-e-queue",
        message_id="1ce49a2f",
        receive_count=3,
        first_received_at=1692107873.0,
        sent_at=1692107870.0,
        task_name="clean_up",
        scheduled_at=1692107700.0,
    )


def test_and_written() -> None:
    assert headers_of(from_headers(HEADERS)) == HEADERS
    assert headers_of(Delivery(queue="q")) == {
        "X-Aws-Sqsd-Queue": "q",
        "X-Aws-Sqsd-Receive-Count": "1",
    }


def test_the_proxy_says_how_long_the_request_has_waited() -> None:
    start = f"t={time.time() - 12:.3f}"
    delivery = from_headers({"X-Request-Start": start, "X-Proxy-Read-Timeout": "280"})
    assert delivery.waited == pytest.approx(12, abs=2)
    assert delivery.proxy_timeout == 280
    assert from_headers({"X-Request-Start": start}).proxy_timeout == 60
    assert from_headers({"X-Request-Start": f"{time.time() + 5:.3f}"}).waited == 0


@pytest.mark.parametrize("start", ["t=", "t=now", "1", "t=1e9", "t=-1000000000.000"])
def test_a_strange_request_start_is_left_out(start: str) -> None:
    headers = {"X-Request-Start": start, "X-Proxy-Read-Timeout": "soon"}
    assert from_headers(headers) == Delivery()


@pytest.mark.parametrize("count", ["", "-1", "0", "many", "²", "1" * 5000])
def test_a_strange_receive_count_is_one(count: str) -> None:
    assert from_headers({"X-Aws-Sqsd-Receive-Count": count}).receive_count == 1


def test_what_is_missing_or_strange_is_left_out() -> None:
    assert from_headers({}) == Delivery()
    strange = {
        "X-Aws-Sqsd-Sent-At": "yesterday",
        "X-Aws-Sqsd-Scheduled-At": "neverZ",
        "X-Aws-Sqsd-Msgid": "a\nb",
    }
    assert from_headers(strange) == Delivery()
