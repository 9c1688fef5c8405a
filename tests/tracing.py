"""A project that sets OpenTelemetry up in the process of its first task.

Its spans are in the file TRACE_FILE once they are flushed, as JSON without line breaks.
"""

from __future__ import annotations

import os
from operator import methodcaller
from pathlib import Path

from django.core.signals import request_started
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter


def set_up(**_: object) -> None:
    """Set the SDK up, with an exporter whose thread sends nothing before the end."""
    request_started.disconnect(set_up)
    file = Path(os.environ["TRACE_FILE"]).open("a")  # noqa: SIM115 - it stays open
    exporter = ConsoleSpanExporter(out=file, formatter=methodcaller("to_json", indent=None))
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=600_000))
    trace.set_tracer_provider(provider)


def record() -> None:
    """Do nothing, in a span."""


if "TRACE_FILE" in os.environ:  # not where a test module is collected
    request_started.connect(set_up)
