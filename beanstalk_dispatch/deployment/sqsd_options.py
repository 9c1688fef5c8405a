"""The options of the daemon, as the ``.ebextensions`` of a bundle set them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NAMESPACE: Final = "aws:elasticbeanstalk:sqsd"
_NAMESPACE_LINE: Final = re.compile(rf"^(\s*)['\"]?{NAMESPACE}['\"]?:\s*(?:#.*)?$")
_OPTION_LINE: Final = re.compile(r"^(\s*)(\w+):\s*['\"]?([^'\"#]*?)['\"]?\s*(?:#.*)?$")


def http_path(directory: Path) -> str | None:
    """The HttpPath that the files set; None if none does."""
    return options(directory).get("HttpPath")


def options(directory: Path) -> dict[str, str]:
    """Every option of the namespace, by name. The last file in alphabetical order wins.

    The files are read line by line, so that PyYAML is not needed. Elastic Beanstalk also accepts
    a list of ``namespace``, ``option_name`` and ``value``, which is not read.
    """
    found: dict[str, str] = {}
    for file in sorted(directory.glob("*.config")):
        found |= dict(_options_of(file.read_text(errors="replace")))
    return found


def _options_of(content: str) -> Iterator[tuple[str, str]]:
    indent: int | None = None
    for line in content.splitlines():
        if match := _NAMESPACE_LINE.match(line):
            indent = len(match[1])
        elif indent is not None and (option := _OPTION_LINE.match(line)):
            if len(option[1]) <= indent:
                indent = None
            elif option[3]:
                yield option[2], option[3]
