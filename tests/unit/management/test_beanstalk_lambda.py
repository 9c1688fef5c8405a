from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from beanstalk_dispatch.sqs.opening import open_queue
from tests.conftest import Environment

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail"


def run(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("beanstalk_lambda", *arguments, stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def shop(env: Environment) -> Environment:
    env(
        DISPATCH_TABLE="record=tests.jobs.record", DISPATCH_QUEUES=f"mail={URL}",
        DISPATCH_SIGNING_KEYS="a-key-that-is-long-enough", DISPATCH_TASK_TIMEOUT="1m",
    )  # fmt: skip
    return env


@pytest.mark.usefixtures("shop")
def test_the_template_has_the_configuration_of_this_process() -> None:
    template = run()
    assert "Timeout: 240\n" in template
    assert "VisibilityTimeout: 1440\n" in template
    assert 'DJANGO_SETTINGS_MODULE: "tests.settings"\n' in template
    assert 'BEANSTALK_DISPATCH_TABLE: "record=tests.jobs.record"\n' in template
    assert "# BEANSTALK_DISPATCH_SIGNING_KEYS is a secret and left out\n" in template
    assert "a-key" not in template


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(("arguments", "number"), [((), 10), (("--max-concurrency", "50"), 50)])
def test_the_number_of_invocations_at_a_time_is_bounded(
    arguments: tuple[str, ...], number: int
) -> None:
    assert f"ScalingConfig: {{MaximumConcurrency: {number}}}\n" in run(*arguments)
    bound = f"  scaling_config {{\n    maximum_concurrency = {number}\n  }}\n"
    assert bound in run(*arguments, "--format", "terraform")


@pytest.mark.parametrize("number", ["1", "1001"])
def test_aws_bounds_the_number_of_invocations(number: str) -> None:
    with pytest.raises(CommandError, match="expected an integer from 2 to 1000"):
        run("--max-concurrency", number)


@pytest.mark.usefixtures("shop")
def test_format_and_timeout_are_options() -> None:
    template = run("--format", "terraform", "--timeout", "100")
    assert "timeout       = 100\n" in template
    assert 'name                       = "shop-mail"' in template


def test_the_function_gets_each_queue_by_its_url_and_may_send_to_it(shop: Environment) -> None:
    """It may not look a name up."""
    shop(DISPATCH_QUEUES="mail=shop-mail work=shop-work dead=shop-dead",
         DISPATCH_DEAD_LETTER_QUEUE="dead", DISPATCH_SIGNING_KEYS=None)  # fmt: skip
    where = ("--region", "eu-west-1", "--account", "123456789012")
    base = "https://sqs.eu-west-1.amazonaws.com/123456789012/shop"
    variables = f"mail={base}-mail work={base}-work dead={base}-dead"
    others = [f"arn:aws:sqs:eu-west-1:123456789012:shop-{each}" for each in ("work", "dead")]
    template = run(*where)
    assert f'BEANSTALK_DISPATCH_QUEUES: "{variables}"\n' in template
    policy = f'{{Effect: Allow, Action: "sqs:SendMessage", Resource: {json.dumps(others)}}}'
    assert f'- Version: "2012-10-17"\n          Statement:\n            - {policy}\n' in template
    listed = ", ".join(map(json.dumps, others))
    expected = f"Resource = [aws_sqs_queue.dead_letters.arn, {listed}]\n"
    assert expected in run(*where, "--format", "terraform")


def test_a_dead_letter_queue_that_the_template_makes_needs_no_other_policy(
    shop: Environment,
) -> None:
    shop(DISPATCH_QUEUES=f"mail={URL} dead={URL}-dead-letter", DISPATCH_DEAD_LETTER_QUEUE="dead")
    assert "Statement" not in run()


def test_an_address_of_this_machine_is_a_warning(
    shop: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    shop(DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:5000")
    run()
    assert capsys.readouterr().err == (
        "warning: BEANSTALK_DISPATCH_SQS_ENDPOINT_URL is an address of this machine\n"
    )


@pytest.mark.usefixtures("shop")
def test_what_is_wrong_is_one_line() -> None:
    with pytest.raises(CommandError, match="there is no queue 'work'; known: mail"):
        run("--queue", "work")
    with pytest.raises(CommandError, match="expected an integer from 1 to 900, not '901'"):
        run("--timeout", "901")


def test_a_task_that_takes_too_long_is_an_error(shop: Environment) -> None:
    shop(DISPATCH_TASK_TIMEOUT="1h")
    with pytest.raises(CommandError, match="a task may take 3600 s"):
        run()


def test_the_queue_is_compared_with_the_function(
    sqs_env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = open_queue("jobs")
    with pytest.raises(SystemExit, match="1"):
        call_command("beanstalk_lambda", "--check")
    assert capsys.readouterr().out.startswith("error    E501 queue jobs: VisibilityTimeout is ")
    queue.client.set_queue_attributes(
        QueueUrl=queue.url, Attributes={"VisibilityTimeout": str(6 * 480)}
    )
    assert run("--check") == "ok            queue jobs: it fits a function of 480 s\n"


def test_a_queue_that_sqs_does_not_show_is_an_error(without_queue: Environment) -> None:
    with pytest.raises(CommandError, match="SQS does not say what the queue 'jobs' is like"):
        run("--check")


def test_a_queue_that_is_not_configured_is_an_error(env: Environment) -> None:
    env(DISPATCH_QUEUES="jobs=a-queue")
    with pytest.raises(CommandError, match="'mial' is not in BEANSTALK_DISPATCH_QUEUES"):
        run("--check", "--queue=mial")


def test_without_a_queue_there_is_nothing_to_check(env: Environment) -> None:
    with pytest.raises(CommandError, match="no queue is configured; add --queue"):
        run("--check")
