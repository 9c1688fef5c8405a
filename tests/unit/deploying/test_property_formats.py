from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import environ
import pytest
import yaml

from beanstalk_dispatch.deploying.properties import Property
from beanstalk_dispatch.deploying.property_formats import (
    FORMATS,
    PROPERTIES,
    SECRETS,
    Export,
    as_dotenv,
    as_eb,
    as_ebextensions,
    as_terraform,
)

VALUES = {
    "PLAIN": "True",
    "PAIRS": "a=b.c d=e.f",
    "QUOTES": """it's "quoted" """.strip(),
    "QUOTED": '"in quotes"',
    "JSON": '{"a": "b.c"}',
    "DOLLAR": "${HOME} $HOME %{if} `id` 100%",
    "BACKSLASH": "a\\b",
    "UNICODE": "ü€😀",
    "YAML": "- a: #b \x7f \x85 \u2028 \ufeff !!x &y *z",
}
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:keys-AbCdEf"
EXPORT = Export(
    properties=[Property(name=name, value=value) for name, value in VALUES.items()],
    secrets={"KEYS": ARN},
    left_out=["PASSWORD"],
    environment="shop-worker",
)
EMPTY = Export(properties=[])
# The EB CLI refuses a pair that does not match this, and takes the rest of it as the value.
_EB_PAIR = re.compile(r'[\w\\_.:/+@-][^="]*=.*')


def words(script: str) -> list[list[str]]:
    """The words of each command, as a POSIX shell splits them."""
    script = re.sub(r"^(eb|aws) ", r"print_words \1 ", script, flags=re.MULTILINE)
    shell = f"print_words() {{ printf '%s\\0' \"$@\"; printf '\\0'; }}\n{script}\n"
    run = subprocess.run(["/bin/sh", "-c", shell], stdout=subprocess.PIPE, check=True)
    return [line.split("\0") for line in run.stdout.decode().split("\0\0") if line]


def test_the_eb_cli_gets_each_value_intact() -> None:
    eb, aws = words(as_eb(EXPORT))
    assert eb[:4] == ["eb", "setenv", "-e", "shop-worker"]
    assert all(_EB_PAIR.fullmatch(pair) for pair in eb[4:])
    assert dict(pair.split("=", 1) for pair in eb[4:]) == VALUES
    assert aws[:5] == [
        "aws", "elasticbeanstalk", "update-environment", "--environment-name", "shop-worker",
    ]  # fmt: skip
    assert json.loads(aws[6]) == [{"Namespace": SECRETS, "OptionName": "KEYS", "Value": ARN}]


def test_a_shell_and_django_environ_read_the_dotenv_form_alike() -> None:
    output = as_dotenv(EXPORT)
    assert dict(assignments(output)) == VALUES
    read: dict[str, str] = {}
    reader: Any = type("Reader", (environ.Env,), {"ENVIRON": read})
    reader.read_env(io.StringIO(output))
    unbroken = {name: value for name, value in VALUES.items() if value.splitlines() == [value]}
    assert read.items() >= unbroken.items()
    assert "QUOTES" in unbroken
    assert f"# KEYS is the secret {ARN}" in output


def assignments(script: str) -> Iterator[tuple[str, str]]:
    for word in shlex.split(script, comments=True):
        name, _, value = word.partition("=")
        yield name, value


def test_the_ebextensions_form_is_an_option_settings_file() -> None:
    assert yaml.safe_load(as_ebextensions(EXPORT)) == {
        "option_settings": {PROPERTIES: VALUES, SECRETS: {"KEYS": ARN}}
    }


def test_terraform_reads_each_value_without_templates() -> None:
    setting = re.compile(
        r'setting \{\n  namespace = "(.+)"\n  name      = "(.+)"\n  value     = (".*")\n\}'
    )
    found = {
        (namespace, name): hcl_string(value)
        for namespace, name, value in setting.findall(as_terraform(EXPORT))
    }
    assert found == {
        **{(PROPERTIES, name): value for name, value in VALUES.items()},
        (SECRETS, "KEYS"): ARN,
    }


def hcl_string(literal: str) -> str:
    """A quoted template of HCL, which has no template in it."""
    assert not re.search(r"(?<!\$)\$\{|(?<!%)%\{", literal)
    return str(json.loads(literal.replace("$${", "${").replace("%%{", "%{")))


@pytest.mark.parametrize("name", FORMATS)
def test_a_secret_that_is_left_out_is_named(name: str) -> None:
    assert "# PASSWORD is a secret and left out" in FORMATS[name](EXPORT).splitlines()


@pytest.mark.parametrize(
    ("name", "output"),
    [("eb", ""), ("dotenv", ""), ("ebextensions", "option_settings:"), ("terraform", "")],
)
def test_nothing_to_set_is_nothing_to_type(name: str, output: str) -> None:
    assert FORMATS[name](EMPTY) == output
