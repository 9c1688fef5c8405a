"""The SDK's transport, in whose queue errors have room that traces do not take."""

from __future__ import annotations

from typing import Final

from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import HttpTransport

_TELEMETRY: Final = frozenset(
    {"transaction", "span", "profile", "profile_chunk", "log", "trace_metric", "sessions"}
)
"""The kinds of items that are dropped first."""


class ErrorsFirstTransport(HttpTransport):
    """Takes traces only while half of the queue is free. Errors and check-ins may fill it."""

    def capture_envelope(self, envelope: Envelope) -> None:
        """Put the envelope into the queue, or count it as lost."""
        is_telemetry = all(item.type in _TELEMETRY for item in envelope.items)
        if is_telemetry and self._waiting() >= self.options["transport_queue_size"] // 2:
            for item in envelope.items:
                self.record_lost_event("queue_overflow", item=item)
            return
        super().capture_envelope(envelope)

    def _waiting(self) -> int:
        """How many envelopes wait. The SDK itself only says whether its queue is full."""
        queue = getattr(self._worker, "_queue", None)
        return queue.qsize() if queue is not None else 0
