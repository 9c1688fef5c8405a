"""The stand-in for Sentry refuses what Sentry refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sentry_rules import Ingestion

ID = "0123456789abcdef" * 2
TRACE = {"trace_id": ID, "span_id": ID[:16]}
SPAN = TRACE | {"span_id": ID[1:17], "parent_span_id": ID[:16]}
EVENT = {"event_id": ID, "timestamp": "2026-12-01T00:00:00Z", "tags": {"final": "yes"}}
TRANSACTION = EVENT | {
    "timestamp": 2, "start_timestamp": 1, "contexts": {"trace": TRACE}, "spans": [SPAN],
}  # fmt: skip
MONITOR = {"schedule": {"type": "crontab", "value": "*/5 0-3 * * 1,2"}, "timezone": "UTC"}
CHECK_IN = {"check_in_id": ID, "monitor_slug": "a_b-1", "status": "ok", "monitor_config": MONITOR}


def envelope(kind: str, body: Any, *, length: int | None = None, event_id: str = ID) -> bytes:
    content = json.dumps(body).encode()
    item = {"type": kind, "length": len(content) if length is None else length}
    return b"\n".join([json.dumps({"event_id": event_id}).encode(), json.dumps(item).encode(),
                       content, b""])  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("event", EVENT), ("transaction", TRANSACTION), ("check_in", CHECK_IN),
        ("check_in", CHECK_IN | {"monitor_config": None}), ("span", {"items": [TRACE]}),
        ("log", {"items": [{"body": "text"}]}), ("sessions", {}),
    ],
)  # fmt: skip
def test_what_is_right_passes(kind: str, body: Any) -> None:
    ingestion = Ingestion()
    assert not ingestion.refuse(envelope(kind, body))
    assert ingestion.problems == []


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        ("event", EVENT | {"event_id": "x"}, "event: event_id is not 32 hex digits"),
        ("event", EVENT | {"tags": {"a b": "c"}}, "event: a tag is refused"),
        ("event", EVENT | {"tags": {"a": "c\nd"}}, "event: a tag is refused"),
        ("event", EVENT | {"tags": {"a": 1}}, "event: a tag is refused"),
        ("event", EVENT | {"level": "critical"}, "event: no such level"),
        ("event", EVENT | {"fingerprint": [None]}, "event: the fingerprint is not a list"),
        ("event", EVENT | {"exception": {"values": [{}]}}, "event: an exception has no type"),
        ("transaction", TRANSACTION | {"timestamp": 0.5}, "transaction: it ends before"),
        ("transaction", TRANSACTION | {"spans": [SPAN, SPAN]}, "transaction: spans do not hang"),
        ("check_in", CHECK_IN | {"monitor_slug": "A b"}, "check_in: the slug is refused"),
        ("check_in", CHECK_IN | {"status": "failed"}, "check_in: no such status"),
        ("check_in", CHECK_IN | {"monitor_config": MONITOR | {"max_runtime": 0}},
         "check_in: the monitor is refused"),
        ("unknown", {}, "not an envelope: KeyError: 'unknown'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(kind: str, body: Any, problem: str) -> None:
    ingestion = Ingestion()
    assert ingestion.refuse(envelope(kind, body))
    assert ingestion.problems[0].startswith(problem)


def test_the_envelope_must_be_right_too() -> None:
    ingestion = Ingestion()
    assert ingestion.refuse(envelope("event", EVENT, event_id="x"))
    assert ingestion.refuse(envelope("sessions", {}, length=9))
    assert not ingestion.refuse(envelope("check_in", CHECK_IN))
    assert ingestion.refuse(envelope("check_in", CHECK_IN))
    assert ingestion.problems == [
        "event: the envelope has another event_id",
        "sessions: length 9 of 3 bytes",
        "check_in: it has ended before",
    ]
