"""The signature around the body of a message: made, verified and removed."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from hmac import HMAC
from typing import Final

from django.core.signing import BadSignature as DjangoBadSignature
from django.core.signing import Signer, b64_encode
from django.utils.crypto import salted_hmac
from django.utils.encoding import force_bytes

from beanstalk_dispatch.conf.variables import CELERY_QUEUES, SIGNING_KEYS
from beanstalk_dispatch.exceptions import BadSignature

_SALT: Final = "beanstalk_dispatch.message."
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}")  # HMAC-SHA256 as django.core.signing writes it

_OF_CELERY: Final = "eyJib2R5Ijog"
"""The start of a message of Celery: that of JSON with ``body`` as its first member, in base64."""


class _Signer(Signer):
    """A Signer that derives the HMAC's key from each signing key once, not at each use."""

    def __init__(self, queue: str, keys: Sequence[str]) -> None:
        salt = _SALT + queue
        super().__init__(key=keys[0], salt=salt, fallback_keys=list(keys[1:]))
        self._keyed: dict[str | bytes, HMAC] = {
            key: salted_hmac(f"{salt}signer", "", key, algorithm=self.algorithm) for key in keys
        }
        """The HMAC of an empty string with each key, as Signer.signature makes it."""

    def signature(self, value: str | bytes, key: str | bytes | None = None) -> str:
        hmac = self._keyed[key or self.key].copy()
        hmac.update(force_bytes(value))
        return b64_encode(hmac.digest()).decode()


@functools.lru_cache(maxsize=100)
def signer(queue: str, keys: tuple[str, ...]) -> Signer:
    """Return the signer of the messages on the queue named ``queue``. The first key signs."""
    return _Signer(queue, keys)


def verified(content: str, *, queue: str, keys: Sequence[str]) -> str:
    """Return a body without its signature. Raise BadSignature if no key has made it."""
    try:
        return signer(queue, tuple(keys)).unsign(content)
    except (DjangoBadSignature, UnicodeEncodeError):  # half a surrogate pair has no bytes
        if _ends_with_signature(content):
            raise BadSignature(f"no signing key matches for queue {queue!r}") from None
        remedy = f"set {SIGNING_KEYS.variable} where it is sent, too"
        if content.startswith(_OF_CELERY):
            remedy = f"to run messages of Celery, name the queue in {CELERY_QUEUES.variable}"
        raise BadSignature(f"not signed; {remedy}") from None


def strip_signature(content: str) -> str:
    """Return a body in JSON without its signature, which is not verified."""
    if not content.endswith("}") and _ends_with_signature(content):
        return content.rpartition(":")[0]
    return content


def _ends_with_signature(content: str) -> bool:
    _, colon, signature = content[-44:].rpartition(":")
    return bool(colon and _SIGNATURE.fullmatch(signature))


def is_signed(body: str) -> bool:
    """Return True if a body looks signed, by anyone and for any queue."""
    return body != strip_signature(body)
