"""Casts of the variables whose values are secret."""

from __future__ import annotations

import re
from typing import Final

from .casts import SEPARATORS, InvalidValue, string, strings

MIN_KEY_LENGTH: Final = 16
"""The fewest characters of a signing key or a token. A shorter one can be guessed."""
_UNRESOLVED_ARN: Final = r"\barn:aws[a-z-]*:(secretsmanager|ssm):"
_SHORT_KEY: Final = (
    f"has a key of fewer than {MIN_KEY_LENGTH} characters, which can be guessed; a comma or "
    "whitespace in a key makes two keys of it, unless it stands in a JSON list"
)
_UNPRINTABLE_KEY: Final = (
    "has a key with a character that is not printable, such as NUL or a byte order mark; write the "
    "keys again, in UTF-8 without such a mark"
)
_SEVERAL_KEYS_IN_A_LINE: Final = (
    "a line of the file is either one key with a comma or whitespace in it, or several keys; write "
    "one key a line, or a JSON list"
)
_UNRESOLVED: Final = (
    "is the ARN of a secret, not its value; set the ARN in the option namespace "
    "aws:elasticbeanstalk:application:environmentsecrets, which replaces it with the value"
)


class Secret(str):
    """A string whose repr hides it: error pages and Sentry show a frame's locals by repr.

    In every other way it is the string, so botocore and Django's Signer use its value.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"


def aws_credential(value: object) -> str | None:
    """Return a credential for AWS, or None for an empty one: boto3 then looks for its own.

    In Django's settings beanstalk-dispatch 0.1 took an empty string for that. It lets nobody in.
    """
    return None if value == "" else credential(value)


def credential(value: object) -> Secret:
    """Return an AWS key, secret or token.

    Refuse line breaks: botocore's error would echo the whole HTTP header, secret included.
    """
    secret = string(value)
    if not secret:
        raise InvalidValue("is empty; remove the setting, or write None")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise InvalidValue("contains whitespace or non-ASCII characters")
    return Secret(secret)


def token(value: object) -> Secret:
    """Return the secret that a client shows in a header to be let in."""
    secret = credential(value)
    if len(secret) < MIN_KEY_LENGTH:
        raise InvalidValue(f"has fewer than {MIN_KEY_LENGTH} characters, so it can be guessed")
    return secret


def signing_keys(value: object) -> tuple[Secret, ...]:
    """Return a list of keys. Refuse a list without any, so that signing is never off by mistake."""
    keys = tuple(Secret(item) for item in strings(value))
    if not keys:
        raise InvalidValue("contains no key; remove the variable to send unsigned messages")
    if not all(map(str.isprintable, keys)):
        raise InvalidValue(_UNPRINTABLE_KEY)
    if any(len(key.strip()) < MIN_KEY_LENGTH for key in keys):
        raise InvalidValue(_SHORT_KEY)
    return keys


def signing_keys_of_file(content: str) -> tuple[Secret, ...]:
    """Return the keys of a file: one key a line, or a JSON list.

    A key in a line may contain spaces and commas. Refuse a line that is as well a list of keys: it
    is not clear which of the two is meant.
    """
    if content.startswith("["):
        return signing_keys(content)
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    for line in lines:
        items = [item for item in re.split(SEPARATORS, line) if item]
        if len(items) > 1 and all(len(item) >= MIN_KEY_LENGTH for item in items):
            raise InvalidValue(_SEVERAL_KEYS_IN_A_LINE)
    return signing_keys(lines)


def refuse_reference(value: object) -> None:
    """Raise InvalidValue if a secret is the ARN of a secret, which nobody has replaced."""
    items = [value] if isinstance(value, str) else value
    if isinstance(items, list | tuple) and any(
        isinstance(item, str) and re.search(_UNRESOLVED_ARN, item) for item in items
    ):
        raise InvalidValue(_UNRESOLVED)
