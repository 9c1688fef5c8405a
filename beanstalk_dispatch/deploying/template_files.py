"""The files of a deployment, in ``templates``, with ``%{name}`` where a plan fills something in."""

from __future__ import annotations

import functools
import json
import re
import string
import tomllib
from collections.abc import Mapping
from importlib import resources
from shlex import quote
from typing import Any


class _Template(string.Template):
    """A template that leaves ``$`` to nginx and shells, and braces to Terraform and YAML."""

    delimiter = "%"


def fill_in(file: str, /, **values: object) -> str:
    """Return the template in this file with its values. Raise KeyError if one is missing."""
    return _Template(_read(file)).substitute(values)


def fill_in_json(file: str, /, **values: object) -> Any:
    """Return the JSON value of a template, each of whose values is one."""
    return json.loads(fill_in(file, **{name: json.dumps(each) for name, each in values.items()}))


def shell_commands(name: str, /, **values: str) -> list[str]:
    """Return the commands of this name in ``commands.toml``, with their values quoted."""
    quoted = {key: quote(each) for key, each in values.items()}
    filled = _Template(_commands()[name]).substitute(quoted)
    return re.split(r"(?<!\\)\n", filled.strip())


@functools.cache
def _commands() -> Mapping[str, str]:
    return tomllib.loads(_read("commands.toml"))


def _read(file: str) -> str:
    return resources.files(__package__).joinpath("templates", file).read_text("utf-8")
