"""The options of the daemon, as the files of a project set them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NAMESPACE: Final = "aws:elasticbeanstalk:sqsd"
OPTIONS_FILES: Final = "beanstalk/*-options.json"
"""Files for ``aws elasticbeanstalk update-environment``, one for each worker environment."""
_NAMESPACE_LINE: Final = re.compile(rf"^(\s*)['\"]?{NAMESPACE}['\"]?:\s*(?:#.*)?$")
_OPTION_LINE: Final = re.compile(r"^(\s*)(\w+):\s*['\"]?([^'\"#]*?)['\"]?\s*(?:#.*)?$")


def http_path(root: Path) -> str | None:
    """Return the HttpPath that the files set; None if none does."""
    return options(root).get("HttpPath")


def options_file(environment: str) -> str:
    """Return the path of an environment's own file."""
    return OPTIONS_FILES.replace("*", environment)


def policy_file(environment: str) -> str:
    """Return the path of the policy of an environment's role."""
    return f"beanstalk/{environment}-policy.json"


def options(root: Path, environment: str = "*") -> dict[str, str]:
    """Return every option of the namespace, from OPTIONS_FILES and then ``.ebextensions``.

    With the name of an environment, only its own file is read and not those of others.
    The last file of ``.ebextensions`` in alphabetical order wins. The files are read line by line,
    so that PyYAML is not needed. Elastic Beanstalk also accepts a list of ``namespace``,
    ``option_name`` and ``value``, which is not read.
    """
    found: dict[str, str] = {}
    for file in sorted(root.glob(options_file(environment))):
        found |= json_options(file, NAMESPACE)
    for file in sorted((root / ".ebextensions").glob("*.config")):
        found |= dict(_options_of(file.read_text(errors="replace")))
    return found


def json_options(file: Path, namespace: str) -> dict[str, str]:
    """Return the options of a namespace in a file for the AWS CLI, by name."""
    try:
        settings = json.loads(file.read_text())
        return {
            str(each["OptionName"]): str(each["Value"])
            for each in settings
            if each["Namespace"] == namespace
        }
    except (OSError, ValueError, TypeError, KeyError):
        return {}


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
