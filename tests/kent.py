"""The Sentry ingest server of the tests, and what it was sent."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

from tests.services import ROOT, accepts, free_port, until


class Kent:
    """The ingest server; what it got is told by kind of envelope item."""

    def __init__(self, *, delay: float = 0) -> None:
        self.port = free_port()
        self.dsn = f"http://public@127.0.0.1:{self.port}/1"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kent_server", str(self.port), str(delay)],
            cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._items: list[dict[str, Any]] = []
        until(lambda: accepts(self.port))

    def items(self) -> list[dict[str, Any]]:
        """All so far; only what is new is asked for."""
        url = f"http://127.0.0.1:{self.port}/all/{len(self._items)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            self._items += [each["payload"] for each in json.load(answer)]
        return self._items

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [each["body"] for each in self.items() if each["header"]["type"] == kind]

    def tagged(self, prefix: str) -> list[dict[str, Any]]:
        """The events of tasks whose ids start so."""
        events = self.of("event")
        return [e for e in events if e.get("tags", {}).get("task_id", "").startswith(prefix)]

    def events(self, task_id: str) -> list[dict[str, Any]]:
        return [each for each in self.tagged(task_id) if each["tags"]["task_id"] == task_id]

    def event(self, task_id: str) -> dict[str, Any]:
        """The one event about a task."""
        until(lambda: self.events(task_id))
        (found,) = self.events(task_id)
        return found

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """Every span of a trace, from either lifecycle, as op, id, parent, status and data."""
        found = [_streamed(span) for body in self.of("span") for span in body["items"]]
        for transaction in self.of("transaction"):
            found += map(_static, [transaction["contexts"]["trace"], *transaction["spans"]])
        return [span for span in found if span["trace"] == trace_id]

    def stop(self) -> None:
        """End it. Nothing that it was sent may have been refused."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/problems", timeout=10) as answer:
            problems = json.load(answer)
        self._process.terminate()
        self._process.wait(10)
        assert problems == []


def _static(span: dict[str, Any]) -> dict[str, Any]:
    return {
        "op": span["op"],
        "name": span.get("description"),
        "id": span["span_id"],
        "parent": span.get("parent_span_id"),
        "failed": "internal_error" in {span.get("status"), span.get("tags", {}).get("status")},
        "trace": span["trace_id"],
        "data": span.get("data", {}),
    }


def _streamed(span: dict[str, Any]) -> dict[str, Any]:
    data = {name: attribute["value"] for name, attribute in span["attributes"].items()}
    return {
        "op": data.get("sentry.op"),
        "name": span["name"],
        "id": span["span_id"],
        "parent": span.get("parent_span_id"),
        "failed": span["status"] == "error",
        "trace": span["trace_id"],
        "data": data,
    }
