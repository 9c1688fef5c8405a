"""The settings of a function whose log Lambda's own handler writes."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

LOGGING = {}
