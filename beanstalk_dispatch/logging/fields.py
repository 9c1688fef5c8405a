"""The fields of a log line as attributes of its record, which loggers of JSON write.

A line is a template such as ``task id=%s function=%s``, so its fields need no second list.
"""

from __future__ import annotations

import ast
import functools
import logging
import re
from typing import Final

_PLACEHOLDER: Final = r"(?:(\w+)=)?%[-+# 0]*\d*(?:\.\d+)?[a-z]"
_NAMES: Final = {"id": "task_id", "name": "slot", "thread": "thread_id"}
"""The names of fields that a record has for something else, or that say too little alone."""
_WITH_ID_OF_SQS: Final = ("post ", "refused ", "record failed ")
"""The starts of the lines whose ``id`` is the one that SQS gave the message."""


@functools.lru_cache(maxsize=512)
def names_in(template: str) -> tuple[str, ...]:
    """Return the name of the field that each argument of a template is; empty if it is none."""
    names = _NAMES
    if template.startswith(_WITH_ID_OF_SQS):
        names = names | {"id": "message_id"}
    return tuple(names.get(name, name) for name in re.findall(_PLACEHOLDER, template))


def add_fields(record: logging.LogRecord) -> None:
    """Set the fields of a line on its record, as ``extra`` does."""
    values, template, attributes = record.args, record.msg, record.__dict__
    if type(values) is tuple and type(template) is str:
        for name, value in zip(names_in(template), values, strict=False):
            if name and name not in attributes:
                if isinstance(value, str) and value[:1] in {"'", '"'}:
                    value = _unquoted(value)  # noqa: PLW2901
                attributes[name] = value


def _unquoted(value: str) -> str:
    """Return the string that ``quoted`` has put in quotes."""
    try:
        return str(ast.literal_eval(value))
    except (SyntaxError, ValueError):
        return value
