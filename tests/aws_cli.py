"""A stand-in for the AWS CLI: it makes the request that a command line means, with boto3.

botocore refuses what AWS has no parameter for, and the server what it does not accept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
from botocore import xform_name


def run(words: list[str], *, endpoint_url: str, root: Path) -> Any:
    """Return the answer to ``aws WORDS``; raise botocore's error if it is refused."""
    service, command, *rest = words
    options = _options_of(rest)
    make: Any = boto3.client  # mypy knows literal names of services only
    client = make(
        service, region_name=options.pop("region", "us-east-1"), endpoint_url=endpoint_url,
        aws_access_key_id="key", aws_secret_access_key="secret",
    )  # fmt: skip
    operations = {xform_name(each, "-"): each for each in client.meta.service_model.operation_names}
    shape = client.meta.service_model.operation_model(operations[command]).input_shape
    members = {xform_name(name, "-"): name for name in shape.members}
    members["notification-endpoint"] = "Endpoint"  # the AWS CLI's name of that of a subscription
    parameters = {
        members[name]: _value_of(value, shape.members[members[name]], root)
        for name, value in options.items()
    }
    return getattr(client, xform_name(operations[command]))(**parameters)


def _options_of(words: list[str]) -> dict[str, str]:
    """Return each option with its value: none of the commands has two words for one."""
    names = [word.removeprefix("--") for word in words[::2]]
    return dict(zip(names, words[1::2], strict=True))


def _value_of(text: str, shape: Any, root: Path) -> Any:
    if text.startswith("file://"):
        text = (root / text.removeprefix("file://")).read_text()
    if shape.type_name in {"integer", "double"}:
        return float(text) if shape.type_name == "double" else int(text)
    if shape.type_name == "map":
        return json.loads(text)
    if shape.type_name == "string":
        return text
    if shape.member.type_name == "structure":
        return [dict(pair.split("=", 1) for pair in text.split(","))]
    return [text]
