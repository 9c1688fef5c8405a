from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from beanstalk_dispatch.deploying.lambda_files import (
    TEMPLATES,
    LambdaPlan,
    as_sam,
    as_terraform,
    function_timeout,
)
from beanstalk_dispatch.deploying.plan import PlannedQueue
from beanstalk_dispatch.deploying.properties import Property
from beanstalk_dispatch.exceptions import ConfigurationError


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short form of GetAtt."""


Loader.add_constructor("!GetAtt", lambda loader, node: f"GetAtt {node.value}")


def plan(queue: str = "shop-mail") -> LambdaPlan:
    properties = [
        Property(name="BEANSTALK_WORKER", value="True"),
        Property(name="SPECIAL", value='a "quoted": ${value}'),
        Property(name="SECRET_ONE", value="hidden", is_secret=True),
    ]
    planned = PlannedQueue(alias="mail", name=queue, region="eu-west-1", account="123456789012")
    return LambdaPlan(name="shop", queue=planned, timeout=60, properties=properties)


def resources(template: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(template, Loader)["Resources"]
    return {name: each["Properties"] for name, each in found.items()}


def test_the_template_has_what_aws_advises() -> None:
    found = resources(as_sam(plan()))
    assert found["Tasks"] == {
        "QueueName": "shop-mail",
        "VisibilityTimeout": 360,
        "RedrivePolicy": {"deadLetterTargetArn": "GetAtt DeadLetters.Arn", "maxReceiveCount": 10},
    }
    assert found["DeadLetters"]["QueueName"] == "shop-mail-dead-letter"
    worker = found["Worker"]
    assert worker["Handler"] == "beanstalk_dispatch.contrib.aws_lambda.handler"
    assert worker["Environment"]["Variables"] == {
        "BEANSTALK_WORKER": "True", "SPECIAL": 'a "quoted": ${value}',
    }  # fmt: skip
    assert worker["Events"]["Tasks"]["Properties"] == {
        "Queue": "GetAtt Tasks.Arn", "BatchSize": 10,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": 10},
    }  # fmt: skip


def test_the_function_may_send_to_other_queues() -> None:
    other = PlannedQueue(alias="work", name="work", region="eu-west-1", account="123456789012")
    *_, policy = resources(as_sam(replace(plan(), other_arns=[other.arn])))["Worker"]["Policies"]
    assert policy["Statement"] == [
        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": [other.arn]}
    ]


def test_a_fifo_queue_and_its_dead_letter_queue_are_fifo() -> None:
    found = resources(as_sam(plan("shop.fifo")))
    assert found["Tasks"]["FifoQueue"] is found["DeadLetters"]["FifoQueue"] is True
    assert found["DeadLetters"]["QueueName"] == "shop-dead-letter.fifo"
    assert "fifo_queue                = true" in as_terraform(plan("shop.fifo"))


@pytest.mark.parametrize("name", ["007", "no", "1e3", "null"])
def test_a_name_is_a_string_in_yaml(name: str) -> None:
    found = resources(as_sam(replace(plan(name), name=name)))
    assert found["Tasks"]["QueueName"] == found["Worker"]["FunctionName"] == name


def test_terraform_says_the_same() -> None:
    text = as_terraform(plan())
    assert "visibility_timeout_seconds = 360" in text
    assert 'function_response_types = ["ReportBatchItemFailures"]' in text
    assert 'SPECIAL          = "a \\"quoted\\": $${value}"' in text
    assert text.count("{") == text.count("}")
    defined = re.findall(r'^resource "(\w+)" "(\w+)"', text, re.MULTILINE)
    used = re.findall(r"= (aws_\w+)\.(\w+)\.(?:arn|name)", text)
    assert used
    assert set(used) <= set(defined)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_secret_is_named_and_not_shown(template: str) -> None:
    text = TEMPLATES[template](plan())
    assert text.startswith("# SECRET_ONE is a secret and left out\n")
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("limit", "timeout"), [(0.5, 31), (10, 40), (120, 480), (250, 900), (870, 900)]
)
def test_the_timeout_holds_several_tasks_if_it_may(limit: float, timeout: int) -> None:
    assert function_timeout(limit) == timeout


def test_a_task_that_no_function_can_run_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="may take 871 s, but Lambda ends .* after 900 s"):
        function_timeout(871)
