"""Leaves out the tests that need more of Sentry's SDK than a pre-release of the next one has."""

from __future__ import annotations

import pytest
import sentry_sdk

from beanstalk_dispatch.contrib.sentry.client import is_supported


def skip_unless_supported() -> None:
    """Call it at the beginning of a module."""
    if not is_supported():
        pytest.skip(f"sentry-sdk {sentry_sdk.VERSION} is not supported", allow_module_level=True)
