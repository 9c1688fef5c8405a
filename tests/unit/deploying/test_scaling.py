from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.deploying.eb_commands import commands
from beanstalk_dispatch.deploying.eb_files import bundle_files
from beanstalk_dispatch.deploying.plan import Plan, make_plan
from beanstalk_dispatch.deploying.scaling import (
    GROUP_PLACEHOLDER,
    SCALING_EBEXTENSIONS,
    scaling_files,
    scaling_options,
    target_tracking,
)
from tests.bundles import SCALING, SHOP, WORKER_OPTIONS, problems_in, write_bundle
from tests.conftest import Environment

TARGET = "TargetTrackingConfiguration"


def make(**given: Any) -> Plan:
    options = {"max_instances": 8, **given}
    return make_plan(get_config(), name="shop", application=SHOP, region="eu-west-1",
                     account="123456789012", **options)  # fmt: skip


@pytest.fixture(autouse=True)
def _table(env: Environment) -> None:
    env(DISPATCH_TABLE="record=tests.jobs.record")


def test_a_plan_that_does_not_scale_has_no_files_for_it() -> None:
    plan = make(max_instances=None)
    assert (scaling_files(plan), scaling_options(plan)) == ({}, {})
    assert "autoscaling" not in bundle_files(plan)[WORKER_OPTIONS].content


def test_the_policy_is_one_that_ec2_auto_scaling_knows() -> None:
    policy = json.loads(bundle_files(make())[SCALING].content)
    model = get_session().get_service_model("autoscaling").operation_model("PutScalingPolicy")
    assert model.input_shape
    request = {
        "AutoScalingGroupName": "a-group",
        "PolicyName": "beanstalk-dispatch",
        "PolicyType": "TargetTrackingScaling",
        TARGET: policy,
    }
    assert not ParamValidator().validate(request, model.input_shape).has_errors()
    misspelt = {**request, TARGET: {**policy, "TargetValu": 1}}
    assert ParamValidator().validate(misspelt, model.input_shape).has_errors()


def test_one_metric_is_compared_and_each_that_it_is_made_from_has_its_id() -> None:
    metrics = target_tracking(make(), "a-group")["CustomizedMetricSpecification"]["Metrics"]
    (result,) = [each for each in metrics if each["ReturnData"]]
    ids = {each["Id"] for each in metrics} - {result["Id"]}
    assert all(name in result["Expression"] for name in ids)
    assert ids == {"visible", "in_flight", "instances"}


@pytest.mark.parametrize(
    ("given", "per_thread", "target"),
    [({}, 1, 15), ({"processes": 2, "threads": 4}, 1, 8), ({"threads": 4}, 3, 12)],
)
def test_an_instance_may_have_as_many_messages_as_it_runs(
    env: Environment, given: dict[str, int], per_thread: int, target: int
) -> None:
    env(DISPATCH_BACKLOG_PER_THREAD=per_thread)
    assert target_tracking(make(**given), "a-group")["TargetValue"] == target


def test_a_shared_bundle_has_the_options_beside_those_of_the_daemon() -> None:
    files = bundle_files(make())
    assert SCALING_EBEXTENSIONS not in files
    settings = json.loads(files[WORKER_OPTIONS].content)
    found = {f"{each['Namespace']} {each['OptionName']}": each["Value"] for each in settings}
    assert found["aws:autoscaling:asg MaxSize"] == "8"
    assert found["aws:autoscaling:trigger UpperThreshold"] == "100"


def test_a_bundle_for_workers_has_the_policy_as_a_resource() -> None:
    content = json.loads(bundle_files(make(is_shared=False))[SCALING_EBEXTENSIONS].content)
    policy = content["Resources"]["BeanstalkDispatchScaling"]["Properties"]
    group = {"Ref": "AWSEBAutoScalingGroup"}
    assert policy["AutoScalingGroupName"] == group
    assert policy[TARGET] == target_tracking(make(), group)
    assert content["option_settings"] == scaling_options(make())


def test_the_commands_put_the_policy_on_the_group_of_the_environment() -> None:
    lines = "\n".join(commands(make(), get_config(), key=None))
    assert "--metrics GroupInServiceInstances" in lines
    assert f'sed "s/{GROUP_PLACEHOLDER}/$group/" {SCALING}' in lines
    for plan in (make(is_shared=False), make(max_instances=None)):
        assert "put-scaling-policy" not in "\n".join(commands(plan, get_config(), key=None))


# --- the check ---


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_files_that_are_written_do_what_is_needed(tmp_path: Path, is_shared: bool) -> None:
    plan = make(is_shared=is_shared)
    assert problems_in(plan, write_bundle(plan, tmp_path)) == []


# --- permissions ---


def test_both_tiers_may_ask_for_the_depth_of_the_queues_if_the_backlog_is_shown(
    env: Environment,
) -> None:
    for token, count in ((None, 0), ("a-token-of-the-tests", 2)):
        env(DISPATCH_BACKLOG_TOKEN=token)
        contents = [file.content for file in bundle_files(make()).values()]
        assert sum("sqs:GetQueueAttributes" in content for content in contents) == count
