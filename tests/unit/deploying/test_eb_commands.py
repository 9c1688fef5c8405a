from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import INFO
from moto.sqs.models import sqs_backends

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.dead_letters.queue import DeadLetterQueue
from beanstalk_dispatch.deploying import alarms
from beanstalk_dispatch.deploying.eb_commands import commands, fresh_key
from beanstalk_dispatch.deploying.eb_files import bundle_files
from beanstalk_dispatch.deploying.plan import Plan, make_plan
from beanstalk_dispatch.deploying.scaling import target_tracking
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.problems import aws_doctor
from tests import aws_cli
from tests.bundles import SCALING, SHOP
from tests.conftest import Environment
from tests.docs.test_docs import check_aws
from tests.docs.test_docs import commands as words_of

ACCOUNT = "123456789012"
KEY = "0123456789abcdef"
QUEUE = f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/shop-mail"


@pytest.fixture(autouse=True)
def properties(env: Environment) -> None:
    env(DISPATCH_TABLE="night=tests.unit.deploying.test_plan.night record=tests.jobs.record",
        DISPATCH_QUEUES="mail=shop-mail orders=orders.fifo", DISPATCH_CRASH_LEDGER=None,
        DISPATCH_PERIODIC_TASKS="record")  # fmt: skip


def planned(config: Config, **given: Any) -> Plan:
    return make_plan(
        config, name="shop", application=SHOP, region="eu-west-1", account=ACCOUNT, **given
    )


def script(key: str | None = KEY, **given: Any) -> str:
    config = get_config()
    return "\n".join(commands(planned(config, **given), config, key=key))


def typed(text: str, *start: str) -> list[list[str]]:
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [words for words in words_of(lines) if words[: len(start)] == list(start)]


def test_each_command_of_aws_is_one_that_aws_knows() -> None:
    scaled = script(max_instances=4).replace("group=$(aws", "aws")
    assert len(typed(scaled, "aws")) == len(typed(script(), "aws")) + 3
    for _, *arguments in typed(scaled, "aws"):
        check_aws(arguments)


NOT_IN_MOTO = {
    "attach-role-policy": "moto has none of AWS's own policies",
    "update-environment": "moto has no options of environments",
    "wait": "moto's environments never change",
}
"""The commands that the stand-in cannot run, with the reason. ``check_aws`` knows their options."""


def test_aws_accepts_each_command_and_the_doctor_finds_nothing_wrong(
    env: Environment, moto: str, tmp_path: Path
) -> None:
    """All but those of Elastic Beanstalk are run, in their order, on a stand-in for AWS."""
    moto_queues = sqs_backends[ACCOUNT]["eu-west-1"].queues
    env(DISPATCH_QUEUES="mail=shop-mail dead=shop-failed", DISPATCH_DEAD_LETTER_QUEUE="dead",
        DISPATCH_SQS_KEY="key", DISPATCH_SQS_SECRET="secret", DISPATCH_PERIODIC_TASKS=None,
        DISPATCH_SQS_REGION="eu-west-1", DISPATCH_SQS_ENDPOINT_URL=moto,
        AWS_ENDPOINT_URL_STS=moto)  # fmt: skip
    for name in ("shop-mail", "shop-mail-dead-letter", "shop-failed"):
        moto_queues.pop(name, None)  # of a test in the same process
    config = get_config()
    plan = planned(config, alarm_topic="ops@example.com")
    for path, file in bundle_files(plan).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(file.content)
    every = typed("\n".join(commands(plan, config, key=KEY)), "aws")
    for _, *words in every:
        if words[1] not in NOT_IN_MOTO:
            aws_cli.run(words, endpoint_url=moto, root=tmp_path)
    assert len(every) == 18
    assert sum(words[2] in NOT_IN_MOTO for words in every) == len(NOT_IN_MOTO)
    found = list(aws_doctor.examine())
    assert [each.msg for each in found if each.level > INFO] == []
    assert DeadLetterQueue.open("shop-failed").sources == ()
    assert DeadLetterQueue.open("shop-mail-dead-letter").sources == ("shop-mail",)
    found_alarms = aws_cli.run(
        ["cloudwatch", "describe-alarms", "--region", "eu-west-1"], endpoint_url=moto, root=tmp_path
    )["MetricAlarms"]
    topic = f"arn:aws:sns:eu-west-1:{ACCOUNT}:shop-alarms"
    assert {each["AlarmName"]: each["AlarmActions"] for each in found_alarms} == {
        "shop-mail-dead-letter": [topic], "shop-failed": [topic],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "actions", "is_warned"),
    [
        (None, 0, True),
        (f"arn:aws:sns:eu-west-1:{ACCOUNT}:on-call", 2, False),
        (f"arn:aws:sns:us-east-1:{ACCOUNT}:on-call", 0, True),
        ("ops@example.com", 2, False),
    ],
)
def test_an_alarm_that_nobody_hears_is_a_warning(
    topic: str | None, actions: int, is_warned: bool
) -> None:
    plan = planned(get_config(), alarm_topic=topic)
    text = "\n".join(commands(plan, get_config(), key=KEY))
    assert text.count("--alarm-actions") == actions
    assert ("aws sns subscribe" in text) is ("@" in (topic or ""))
    found = [each.partition(":")[0] for each in alarms.warnings(plan)]
    assert found == ["the alarms in eu-west-1 tell nobody"] * is_warned


def test_the_policy_gets_the_name_of_the_group(tmp_path: Path) -> None:
    plan = make_plan(get_config(), name="shop", application=SHOP, region="eu-west-1",
                     account=ACCOUNT, max_instances=4)  # fmt: skip
    (tmp_path / "beanstalk").mkdir()
    (tmp_path / SCALING).write_text(bundle_files(plan)[SCALING].content)
    lines = "\n".join(commands(plan, get_config(), key=KEY)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("group="))
    end = next(i for i, line in enumerate(lines) if line.startswith("# 4."))
    stub = (
        'aws() { case "$2" in describe-*) echo a-group;; put-*) for last; do :; done; '
        'printf %s "$last";; esac; }\n'
    )
    printed = subprocess.run(
        ["/bin/sh", "-e"], input=stub + "\n".join(lines[start:end]), text=True, cwd=tmp_path,
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert json.loads(printed) == target_tracking(plan, "a-group")


def test_the_properties_are_set_when_the_environment_has_its_options() -> None:
    """EB refuses a change of an environment that changes, and the AWS CLI has its own region."""
    text = script()
    (update,) = typed(text, "aws", "elasticbeanstalk", "update-environment")
    (wait,) = typed(text, "aws", "elasticbeanstalk", "wait")
    assert wait[-2:] == ["--environment-names", "shop-worker"]
    assert "--region" in update
    assert "--region" in wait
    order = [text.index(part) for part in ("update-environment", " wait ", "eb setenv")]
    assert order == sorted(order)


def test_the_first_command_names_application_and_region() -> None:
    (words,) = typed(script(), "eb", "init")
    assert words[2] == "shop"
    assert words[-1] == "eu-west-1"


@pytest.mark.parametrize(
    ("name", "own"), [("shop-mail-dead-letter", []), ("shop-dead", ["shop-dead"])]
)
def test_the_dead_letter_queue_of_the_configuration_is_created_once(
    env: Environment, name: str, own: list[str]
) -> None:
    env(DISPATCH_QUEUES=f"mail=shop-mail dead={name}", DISPATCH_DEAD_LETTER_QUEUE="dead")
    text = script()
    created = typed(text, "aws", "sqs", "create-queue")
    names = [words[words.index("--queue-name") + 1] for words in created]
    assert names == ["shop-mail-dead-letter", "shop-mail", *own]
    assert len(typed(text, "aws", "cloudwatch")) == 1 + len(own)
    assert f" dead=https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/{name}'" in text


def test_a_dead_letter_queue_without_aliases_is_given_by_the_alias_that_is_printed(
    env: Environment,
) -> None:
    env(DISPATCH_QUEUES=None, DISPATCH_DEAD_LETTER_QUEUE="shop-dead")
    for words in typed(script(), "eb", "setenv"):
        values = dict(
            word.split("=", 1) for word in words if word.startswith("BEANSTALK_DISPATCH_")
        )
        env(**values)
        assert get_config().dead_letter_queue == "shop-dead"
        assert [*get_config().queues] == ["work", "shop-dead"]


def test_each_queue_has_a_dead_letter_queue_that_is_created_first() -> None:
    created = typed(script(), "aws", "sqs", "create-queue")
    names = [words[words.index("--queue-name") + 1] for words in created]
    assert names == ["shop-mail-dead-letter", "shop-mail", "orders-dead-letter.fifo", "orders.fifo"]
    attributes = [json.loads(words[-1]) for words in created]
    assert attributes[0] == {"MaximumMessageSize": "1048576", "MessageRetentionPeriod": "1209600"}
    assert attributes[1]["VisibilityTimeout"] == "180"
    assert json.loads(attributes[1]["RedrivePolicy"]) == {
        "deadLetterTargetArn": f"arn:aws:sqs:eu-west-1:{ACCOUNT}:shop-mail-dead-letter",
        "maxReceiveCount": "12",
    }
    assert [each.get("FifoQueue") for each in attributes] == [None, None, "true", "true"]
    assert len(typed(script(), "aws", "cloudwatch", "put-metric-alarm")) == 2


def test_the_properties_of_both_tiers_have_the_new_key_and_the_queues_urls() -> None:
    web, worker = typed(script(), "eb", "setenv")
    assert web[3] == "shop-web"
    assert worker[3] == "shop-worker"
    assert dict(word.split("=", 1) for word in web[4:]) == {
        "BEANSTALK_DISPATCH_TABLE": "night=tests.unit.deploying.test_plan.night "
        "record=tests.jobs.record",
        "BEANSTALK_DISPATCH_PERIODIC_TASKS": "record",
        "BEANSTALK_DISPATCH_QUEUES": f"mail={QUEUE} "
        f"orders=https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/orders.fifo",
        "BEANSTALK_DISPATCH_SIGNING_KEYS": KEY,
        "BEANSTALK_DISPATCH_ISOLATION": "process",
    }
    found = dict(word.split("=", 1) for word in worker[4:])
    assert found["BEANSTALK_WORKER"] == "True"
    assert found["BEANSTALK_DISPATCH_MAX_RECEIVES"] == "12"
    assert found["BEANSTALK_DISPATCH_ISOLATION"] == "process"
    assert found["BEANSTALK_DISPATCH_PERIODIC_TASKS"] == "record night"
    assert found["BEANSTALK_DISPATCH_SIGNING_KEYS"] == KEY


def test_an_isolation_that_is_set_is_kept(env: Environment) -> None:
    env(DISPATCH_ISOLATION="thread")
    for words in typed(script(), "eb", "setenv"):
        assert "BEANSTALK_DISPATCH_ISOLATION=thread" in words


def test_a_key_that_exists_is_not_shown(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS=KEY)
    assert KEY not in script(key=None)


def test_a_shared_bundle_needs_one_more_command() -> None:
    command = "--option-settings file://beanstalk/shop-worker-options.json"
    assert command in script()
    assert command not in script(is_shared=False)


def test_a_fresh_key_is_long_and_another_each_time() -> None:
    first, second = fresh_key(), fresh_key()
    assert first != second
    assert len(first) >= 40
    assert first not in repr(first)


def test_a_task_that_is_too_long_for_the_daemon_is_an_error(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="11h")
    with pytest.raises(ConfigurationError, match="beanstalk_worker"):
        script()
