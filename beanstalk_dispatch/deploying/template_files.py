"""The files of a deployment, in ``templates``, with ``%{name}`` where a plan fills something in."""

from __future__ import annotations

import string
from importlib import resources


class _Template(string.Template):
    """A template that leaves ``$`` to nginx and shells, and braces to Terraform and YAML."""

    delimiter = "%"


def fill_in(file: str, /, **values: object) -> str:
    """Return the template in this file with its values. Raise KeyError if one is missing."""
    template = resources.files(__package__).joinpath("templates", file).read_text()
    return _Template(template).substitute(values)
