"""A Sentry ingest server: kent, which keeps what it gets in memory. It refuses what Sentry does.

Run with a port, and the seconds it takes to accept an event.
"""

from __future__ import annotations

import gzip
import importlib
import io
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from kent.app import EVENTS, EventManager, create_app
from werkzeug.serving import run_simple

from tests.sentry_rules import Ingestion

# What the SDK may send, while kent knows gzip only. brotli is used if it can be imported.
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "br": lambda data: importlib.import_module("brotli").decompress(data),
    "deflate": zlib.decompress,
    "gzip": gzip.decompress,
}


def main() -> None:
    EventManager.MAX_EVENTS = 1_000_000  # it forgets all but the last hundred
    app = create_app()
    delay = float(sys.argv[2])
    ingestion = Ingestion()
    app.add_url_rule(
        "/all/<int:start>",
        view_func=lambda start: [event.to_dict() for event in EVENTS.get_events()[start:]],
    )

    app.add_url_rule("/problems", "problems", view_func=lambda: ingestion.problems)

    def decoded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["REQUEST_METHOD"] == "POST":
            time.sleep(delay)
        body = DECODERS[environ.pop("HTTP_CONTENT_ENCODING", "")](body)
        if body and ingestion.refuse(body):
            start_response("400 Bad Request", [("Content-Type", "application/json")])
            return [b"{}"]
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        answer: Iterable[bytes] = app(environ, start_response)
        return answer

    run_simple("127.0.0.1", int(sys.argv[1]), decoded, threaded=True)


main()
