"""BatchingMiddleware: what a request schedules is sent together, before its response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from .client import batching


class BatchingMiddleware:
    """A block of ``batching()`` around each request. Raises BatchError as the block does."""

    sync_capable: ClassVar = True
    async_capable: ClassVar = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Django's middleware protocol, for both kinds of servers."""
        if self._is_async:
            return self._respond_async(request)
        with batching():
            response: HttpResponseBase = self._get_response(request)
        return response

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        async with batching():
            response: HttpResponseBase = await self._get_response(request)
        return response
