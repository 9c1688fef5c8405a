"""The IAM policies of both tiers, with the least permissions that each needs.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/iam-instanceprofile.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .plan import Plan

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


def web_policy(plan: Plan) -> Policy:
    """Return the permissions of the web tier besides AWSElasticBeanstalkWebTier: to send.

    The queues are given by URL, so no queue is looked up. Only to show the backlog, their depths
    are asked for. With the admin's pages it may handle dead letters, too.
    """
    queues = [each.arn for each in plan.queues]
    operated = list(plan.dead_letter_queues) if plan.shows_dead_letters else []
    return _allow({
        "SendTasks": queues,
        "Backlog": queues if plan.shows_backlog or operated else [],
        "DeadLetters": operated,
    })  # fmt: skip


def worker_policy(plan: Plan) -> Policy:
    """Return the permissions of the worker tier, in place of AWSElasticBeanstalkWorkerTier.

    The managed policy allows the same actions on every queue of the account. An environment reads
    one queue; its tasks may send to the others.
    """
    arn = f"arn:{plan.read_queue.partition}"
    read = plan.read_queue.arn
    others = [each.arn for each in plan.queues if each != plan.read_queue]
    return _allow({
        "RunTasks": [read],
        "SendTasks": others,
        "SendDeadLetters": list(plan.dead_letter_queues),
        "Backlog": [read, *others] if plan.shows_backlog else [],
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
