"""Shows which message attributes have come through nginx and gunicorn as headers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

_PREFIX = "HTTP_X_AWS_SQSD_ATTR_"


class LogAttributeHeaders:
    """Logs the names of such headers, in the order of the alphabet."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if names := sorted(name for name in request.META if name.startswith(_PREFIX)):
            arrived = " ".join(name.removeprefix(_PREFIX) for name in names)
            logging.getLogger("shop").info("attribute headers: %s", arrived)
        return self.get_response(request)
