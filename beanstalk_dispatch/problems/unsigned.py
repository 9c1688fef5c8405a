"""The sentences about messages that are not signed, for a check and for the line of a start."""

from __future__ import annotations

from typing import Final

from beanstalk_dispatch.conf.variables import SIGNING_KEYS

UNSIGNED: Final = "anyone who may send to the queue may run every listed function"
SIGN_MESSAGES: Final = (
    f"Set {SIGNING_KEYS.variable} to one long random string, on the web environment first and then "
    'on the worker environment: python -c "import secrets; print(secrets.token_urlsafe(32))"'
)
