"""The IAM policies of both tiers, with the least permissions that each needs.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/iam-instanceprofile.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Policy = dict[str, Any]

_ACTIONS: Final[Mapping[str, Sequence[str]]] = {
    "RunTasks": (
        "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:SendMessage",
    ),
    "SendTasks": ("sqs:SendMessage",),
    "SendDeadLetters": ("sqs:SendMessage",),
    "Backlog": ("sqs:GetQueueAttributes",),
    "DeadLetters": (
        "sqs:GetQueueAttributes", "sqs:ListDeadLetterSourceQueues", "sqs:ReceiveMessage",
        "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:StartMessageMoveTask",
        "sqs:ListMessageMoveTasks", "sqs:CancelMessageMoveTask",
    ),
    "PeriodicTasks": (
        "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:DeleteItem",
        "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:Scan",
        "dynamodb:UpdateItem",
    ),
    "Metrics": ("cloudwatch:PutMetricData",),
    "Logs": ("logs:CreateLogStream", "logs:PutLogEvents"),
    "Bundles": ("s3:Get*", "s3:List*", "s3:PutObject"),
    "Health": ("elasticbeanstalk:PutInstanceStatistics",),
}  # fmt: skip
"""The actions of each statement, by its Sid. The last five are of the platform's own programs."""


def trust_policy() -> Policy:
    """Return the policy that lets the machines of an environment use a role."""
    service = {"Service": "ec2.amazonaws.com"}
    statement = {"Effect": "Allow", "Principal": service, "Action": "sts:AssumeRole"}
    return _policy_document([statement])


def web_policy(
    queue_arns: Sequence[str],
    *,
    shows_backlog: bool = False,
    operated_arns: Sequence[str] = (),
) -> Policy:
    """Return the permissions of the web tier besides AWSElasticBeanstalkWebTier: to send.

    The queues are given by URL, so no queue is looked up. Only to show the backlog, their depths
    are asked for. ``operated_arns`` are the dead-letter queues that the admin shows.
    """
    return _allow({
        "SendTasks": queue_arns,
        "Backlog": queue_arns if shows_backlog or operated_arns else (),
        "DeadLetters": operated_arns,
    })  # fmt: skip


def worker_policy(
    read_arn: str,
    other_arns: Sequence[str],
    dead_letter_arns: Sequence[str],
    *,
    partition: str = "aws",
    shows_backlog: bool = False,
) -> Policy:
    """Return the permissions of the worker tier, in place of AWSElasticBeanstalkWorkerTier.

    The managed policy allows the same actions on every queue of the account. An environment reads
    one queue; its tasks may send to the others.
    """
    arn = f"arn:{partition}"
    return _allow({
        "RunTasks": [read_arn],
        "SendTasks": other_arns,
        "SendDeadLetters": dead_letter_arns,
        "Backlog": [read_arn, *other_arns] if shows_backlog else (),
        "PeriodicTasks": f"{arn}:dynamodb:*:*:table/*-stack-AWSEBWorkerCronLeaderRegistry*",
        "Metrics": "*",
        "Logs": f"{arn}:logs:*:*:log-group:/aws/elasticbeanstalk*",
        "Bundles": [f"{arn}:s3:::elasticbeanstalk-*", f"{arn}:s3:::elasticbeanstalk-*/*"],
        "Health": [f"{arn}:elasticbeanstalk:*:*:application/*",
                   f"{arn}:elasticbeanstalk:*:*:environment/*"],
    })  # fmt: skip


def _allow(resources: Mapping[str, str | Sequence[str]]) -> Policy:
    """Return a policy with the statements that have a resource, by their Sids."""
    return _policy_document([
        {"Sid": sid, "Effect": "Allow", "Action": _ACTIONS[sid], "Resource": resource}
        for sid, resource in resources.items()
        if resource
    ])  # fmt: skip


def _policy_document(statements: list[Policy]) -> Policy:
    return {"Version": "2012-10-17", "Statement": statements}
