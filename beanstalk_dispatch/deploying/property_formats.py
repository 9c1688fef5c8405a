"""Environment properties in the forms in which Elastic Beanstalk and other tools take them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .properties import Property

PROPERTIES: Final = "aws:elasticbeanstalk:application:environment"
SECRETS: Final = "aws:elasticbeanstalk:application:environmentsecrets"
"""The namespace in which Elastic Beanstalk replaces the ARN of a secret with its value.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/AWSHowTo.secrets.env-vars.html
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The properties to write, and the way in which each secret is delivered."""

    properties: Sequence[Property]
    """The properties with their values. Secrets are shown, because the user asked for that."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Variable → the ARN of the secret in Secrets Manager or Parameter Store."""
    left_out: Sequence[str] = ()
    """Secrets that are not written at all."""
    environment: str = "ENVIRONMENT"
    """The name of the Elastic Beanstalk environment."""


_NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""YAML takes these for line breaks, or refuses them."""


def as_eb(export: Export) -> str:
    """Return an ``eb setenv`` command, and an ``aws`` command for the secrets with an ARN."""
    lines = []
    if export.properties:
        words = [shlex.quote(f"{each.name}={each.value}") for each in export.properties]
        lines.append(" \\\n  ".join([f"eb setenv -e {shlex.quote(export.environment)}", *words]))
    if export.secrets:
        settings = [
            {"Namespace": SECRETS, "OptionName": name, "Value": arn}
            for name, arn in export.secrets.items()
        ]
        lines.append(
            "aws elasticbeanstalk update-environment --environment-name "
            f"{shlex.quote(export.environment)} \\\n"
            f"  --option-settings {shlex.quote(json.dumps(settings))}"
        )
    return "\n".join([*_secret_comments(export), *lines])


def as_dotenv(export: Export) -> str:
    """Return lines that a shell and django-environ read alike."""
    lines = [f"{each.name}={_dotenv_word(each.value)}" for each in export.properties]
    comments = [
        f"# {name} is the secret {arn}: read it into the environment yourself"
        for name, arn in export.secrets.items()
    ]
    return "\n".join([*_secret_comments(export), *comments, *lines])


def _dotenv_word(value: str) -> str:
    """Quote a value so that a shell and django-environ read it alike.

    ``shlex.quote`` writes an apostrophe as a quoted word among others. django-environ takes these
    quotes for a part of the value, and removes double quotes inside single ones. Both read a
    backslash in double quotes.
    """
    if "'" not in value and not value.startswith('"'):
        return shlex.quote(value)
    return '"' + re.sub(r'([\\"$`])', r"\\\1", value) + '"'


def as_ebextensions(export: Export) -> str:
    """Return the content of a file such as ``.ebextensions/properties.config``."""
    values = {each.name: each.value for each in export.properties}
    lines = ["option_settings:"]
    for namespace, options in ((PROPERTIES, values), (SECRETS, export.secrets)):
        if options:
            lines.append(f"  {namespace}:")
            lines += [f"    {name}: {double_quoted(value)}" for name, value in options.items()]
    return "\n".join([*_secret_comments(export), *lines])


def as_terraform(export: Export) -> str:
    """Return ``setting`` blocks for the resource ``aws_elastic_beanstalk_environment``."""
    values = {each.name: each.value for each in export.properties}
    blocks = [
        f"setting {{\n"
        f"  namespace = {double_quoted(namespace)}\n"
        f"  name      = {double_quoted(name)}\n"
        f"  value     = {hcl_string(value)}\n"
        "}"
        for namespace, options in ((PROPERTIES, values), (SECRETS, export.secrets))
        for name, value in options.items()
    ]
    return "\n".join([*_secret_comments(export), *blocks])


def _secret_comments(export: Export) -> list[str]:
    return [f"# {name} is a secret and left out" for name in export.left_out]


def double_quoted(value: str) -> str:
    """Return a string in double quotes, as JSON, YAML and HCL read it alike."""
    return _NOT_IN_YAML.sub(
        lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False)
    )


def hcl_string(value: str) -> str:
    """Return a string in which Terraform finds no template: ``${`` and ``%{`` begin one."""
    return double_quoted(value).replace("${", "$${").replace("%{", "%%{")


FORMATS: Final[Mapping[str, Callable[[Export], str]]] = {
    "eb": as_eb,
    "dotenv": as_dotenv,
    "ebextensions": as_ebextensions,
    "terraform": as_terraform,
}
