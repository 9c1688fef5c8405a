"""The scaling of a worker environment by its queue: a policy of EC2 Auto Scaling, as files.

Elastic Beanstalk's own triggers know no metric of SQS, so they are set to values that no instance
reaches, and a target tracking policy takes their place. EC2 Auto Scaling makes its alarms itself.
https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-target-tracking-metric-math.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .plan import Plan
from .template_files import fill_in_json

SCALING_EBEXTENSIONS: Final = ".ebextensions/beanstalk_dispatch_scaling.config"
"""The same in a bundle for workers only, with the options. Elastic Beanstalk also reads JSON."""
GROUP_PLACEHOLDER: Final = "AUTO_SCALING_GROUP"
"""Stands for the name of the Auto Scaling group, which is known when there is one."""

_GROUP: Final = "AWSEBAutoScalingGroup"
"""Elastic Beanstalk's own name of the Auto Scaling group.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/customize-containers-format-resources-eb.html
"""
_RESOURCE: Final = "BeanstalkDispatchScaling"
IN_SERVICE: Final = "GroupInServiceInstances"
"""A metric that the group does not send by default."""


def scaling_file(plan: Plan) -> str:
    """Return the path of the policy for ``aws autoscaling put-scaling-policy``.

    It is in a bundle that web environments get, too.
    """
    return f"beanstalk/{plan.worker}-scaling.json"


def scaling_files(plan: Plan) -> dict[str, Any]:
    """Return the content of each file, by its path; empty if the plan does not scale."""
    if plan.max_instances is None:
        return {}
    if plan.is_shared:
        return {scaling_file(plan): target_tracking(plan, GROUP_PLACEHOLDER)}
    policy = {
        "Type": "AWS::AutoScaling::ScalingPolicy",
        "Properties": {
            "AutoScalingGroupName": {"Ref": _GROUP},
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingConfiguration": target_tracking(plan, {"Ref": _GROUP}),
        },
    }
    group = {
        "Type": "AWS::AutoScaling::AutoScalingGroup",
        "Properties": {"MetricsCollection": [{"Granularity": "1Minute", "Metrics": [IN_SERVICE]}]},
    }
    return {
        SCALING_EBEXTENSIONS: {
            "option_settings": scaling_options(plan),
            "Resources": {_GROUP: group, _RESOURCE: policy},
        }
    }


def scaling_options(plan: Plan) -> Mapping[str, Mapping[str, str]]:
    """Return the options of each namespace; empty if the plan does not scale.

    No instance uses more than 100 % of its CPU or less than 0 %, so neither trigger is pulled.
    https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html#command-options-general-autoscalingtrigger
    """
    if plan.max_instances is None:
        return {}
    return {
        "aws:autoscaling:asg": {"MinSize": "1", "MaxSize": str(plan.max_instances)},
        "aws:autoscaling:trigger": {
            "MeasureName": "CPUUtilization", "Unit": "Percent", "Statistic": "Average",
            "LowerThreshold": "0", "UpperThreshold": "100",
        },
    }  # fmt: skip


def target_tracking(plan: Plan, group: Any) -> Any:
    """Return a policy that keeps the messages at the number that each instance may have.

    ``group`` is the Auto Scaling group, by its name or as a reference of CloudFormation.
    """
    return fill_in_json(
        "target-tracking.json",
        target=plan.connections * plan.per_thread,
        queue=plan.read_queue.name,
        instances=IN_SERVICE,
        group=group,
    )
