"""Sentry's SDK, imported on first use: while there is nothing to send to, it is not loaded."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from django.utils.functional import SimpleLazyObject

if TYPE_CHECKING:
    import sentry_sdk
    import sentry_sdk.consts
    import sentry_sdk.crons
    import sentry_sdk.utils
else:
    sentry_sdk = SimpleLazyObject(lambda: importlib.import_module("sentry_sdk"))

__all__ = ["sentry_sdk"]
