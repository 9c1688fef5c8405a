"""The SDK's transport, with a queue for errors that traces neither fill nor delay."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import HttpTransport

_TELEMETRY: Final = frozenset(
    {"transaction", "span", "profile", "profile_chunk", "log", "trace_metric", "sessions"}
)
"""The kinds of items that are sent from the second queue."""


class ErrorsFirstTransport(HttpTransport):
    """A transport that sends errors and check-ins, and has a second one send everything else.

    Each has a thread and a queue. The second queue is half as long.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        size = max(options["transport_queue_size"] // 2, 1)
        self.telemetry = HttpTransport(options | {"transport_queue_size": size})

    def capture_envelope(self, envelope: Envelope) -> None:
        """Put the envelope into its queue, or count it as lost."""
        if all(item.type in _TELEMETRY for item in envelope.items):
            self.telemetry.capture_envelope(envelope)
        else:
            super().capture_envelope(envelope)

    def flush(self, timeout: float, callback: Callable[[int, float], None] | None = None) -> None:
        """Wait until both queues are empty, for ``timeout`` seconds in all: the errors first."""
        started = time.monotonic()
        super().flush(timeout, callback)
        self.telemetry.flush(max(timeout - (time.monotonic() - started), 0), callback)

    def kill(self) -> None:
        """Stop both threads."""
        self.telemetry.kill()
        super().kill()
