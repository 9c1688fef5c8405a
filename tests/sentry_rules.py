"""What Sentry's ingestion refuses, so that the stand-ins of the tests refuse it too.

https://develop.sentry.dev/sdk/foundations/envelopes/ has the form of an envelope, and
https://develop.sentry.dev/sdk/telemetry/check-ins/ that of a check-in. Relay drops what is wrong
without a word to the SDK.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

Body = Mapping[str, Any]
_MEBIBYTE: Final = 1_048_576
_FIELD: Final = re.compile(r"(\*|[0-9*/,-]+)")
_TAG: Final = re.compile(r"[\w.:-]{1,200}", re.ASCII)


def _is_hex(length: int, value: object) -> bool:
    return re.fullmatch(rf"[0-9a-f]{{{length}}}", str(value)) is not None


def _are_tags(body: Body) -> bool:
    """Sentry drops a tag that is empty, too long or of two lines."""
    return all(
        _TAG.fullmatch(name) and isinstance(value, str) and re.fullmatch(r".{1,200}", value)
        for name, value in (body.get("tags") or {}).items()
    )


def _is_monitor(config: Body | None) -> bool:
    if config is None:
        return True
    schedule = config["schedule"]
    numbers = [config[name] for name in ("checkin_margin", "max_runtime") if name in config]
    return (
        schedule["type"] == "crontab"
        and [bool(_FIELD.fullmatch(each)) for each in schedule["value"].split()] == [True] * 5
        and all(type(each) is int and 1 <= each <= 40_320 for each in numbers)
        and bool(config["timezone"])
    )


def _is_trace(trace: Body) -> bool:
    return _is_hex(32, trace["trace_id"]) and _is_hex(16, trace["span_id"])


def _hang_together(body: Body) -> bool:
    """Each span is in the transaction's trace, below it or below another of its spans."""
    trace, spans = body["contexts"]["trace"], body["spans"]
    ids = {trace["span_id"], *(each["span_id"] for each in spans)}
    return len(ids) == len(spans) + 1 and all(
        _is_trace(each) and each["trace_id"] == trace["trace_id"] and each["parent_span_id"] in ids
        for each in spans
    )


Rule = tuple[str, Callable[[Any], bool]]
_OF_EVENTS: Final[list[Rule]] = [
    ("event_id is not 32 hex digits", lambda body: _is_hex(32, body["event_id"])),
    ("there is no timestamp", lambda body: bool(body["timestamp"])),
    ("a tag is refused", _are_tags),
]
_RULES: Final[Mapping[str, list[Rule]]] = {
    "event": [
        *_OF_EVENTS,
        (
            "no such level",
            lambda body: body.get("level") in {None, "fatal", "error", "warning", "info", "debug"},
        ),
        (
            "the fingerprint is not a list of strings",
            lambda body: all(isinstance(each, str) for each in body.get("fingerprint", [])),
        ),
        (
            "an exception has no type",
            lambda body: all(
                each.get("type") for each in body.get("exception", {}).get("values", [])
            ),
        ),
    ],
    "transaction": [
        *_OF_EVENTS,
        ("there is no trace", lambda body: _is_trace(body["contexts"]["trace"])),
        ("it ends before it starts", lambda body: body["start_timestamp"] <= body["timestamp"]),
        ("spans do not hang together", _hang_together),
    ],
    "check_in": [
        ("check_in_id is not 32 hex digits", lambda body: _is_hex(32, body["check_in_id"])),
        (
            "the slug is refused",
            lambda body: re.fullmatch(r"[a-z0-9_-]{1,50}", body["monitor_slug"]) is not None,
        ),
        ("no such status", lambda body: body["status"] in {"in_progress", "ok", "error"}),
        ("the monitor is refused", lambda body: _is_monitor(body.get("monitor_config"))),
    ],
    "span": [("there is no trace", lambda body: all(map(_is_trace, body["items"])))],
    "log": [("a log has no text", lambda body: all(each["body"] for each in body["items"]))],
}
_NOT_LOOKED_INTO: Final = frozenset(
    {"client_report", "sessions", "profile", "profile_chunk", "trace_metric"}
)


class Ingestion:
    """What a Sentry project has been sent so far, and what it refused of that."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._ended: set[str] = set()

    def refuse(self, envelope: bytes) -> bool:
        """Note what is wrong with an envelope. Return True if it is refused."""
        before = len(self.problems)
        try:
            self.problems += _problems(envelope, self._ended)
        except Exception as exc:  # not even of the form that the rules look at
            self.problems.append(f"not an envelope: {type(exc).__name__}: {exc}")
        return len(self.problems) > before


def _problems(envelope: bytes, ended: set[str]) -> Iterator[str]:
    head, _, rest = envelope.partition(b"\n")
    header = json.loads(head)
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        item = json.loads(line)
        length = item["length"]
        content, rest = rest[:length], rest[length:].removeprefix(b"\n")
        kind = item["type"]
        if len(content) != length or length > _MEBIBYTE:
            yield f"{kind}: length {length} of {len(content)} bytes"
        if kind in _NOT_LOOKED_INTO:
            continue
        body = json.loads(content)
        yield from (f"{kind}: {what}" for what, holds in _RULES[kind] if not holds(body))
        if kind in {"event", "transaction"} and header.get("event_id") != body["event_id"]:
            yield f"{kind}: the envelope has another event_id"
        if kind == "check_in" and body["status"] != "in_progress":
            if body["check_in_id"] in ended:
                yield "check_in: it has ended before"
            ended.add(body["check_in_id"])
