"""The IAM policies of both tiers, with the least permissions that each needs.

https://docs.aws.amazon.com/elasticbeanstalk/latest/dg/iam-instanceprofile.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Policy = dict[str, Any]


def trust_policy() -> Policy:
    """Return the policy that lets the machines of an environment use a role."""
    return _policy_document([
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ])  # fmt: skip


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
    return _policy_document([
        {"Sid": "SendTasks", "Effect": "Allow", "Action": "sqs:SendMessage",
         "Resource": list(queue_arns)},
        *_backlog_statements(queue_arns, shows_backlog or bool(operated_arns)),
        *_operator_statements(operated_arns),
    ])  # fmt: skip


def _operator_statements(dead_letter_arns: Sequence[str]) -> list[Policy]:
    """Return the permissions to look at dead letters, and to redrive and discard them."""
    if not dead_letter_arns:
        return []
    return [
        _allow_statement(
            "DeadLetters", list(dead_letter_arns), "sqs:GetQueueAttributes",
            "sqs:ListDeadLetterSourceQueues", "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility",
            "sqs:DeleteMessage", "sqs:StartMessageMoveTask", "sqs:ListMessageMoveTasks",
            "sqs:CancelMessageMoveTask",
        )
    ]  # fmt: skip


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
    return _policy_document([
        _allow_statement("RunTasks", [read_arn], "sqs:ReceiveMessage", "sqs:DeleteMessage",
                         "sqs:ChangeMessageVisibility", "sqs:SendMessage"),
        *_send_statements("SendTasks", other_arns),
        *_send_statements("SendDeadLetters", dead_letter_arns),
        *_backlog_statements([read_arn, *other_arns], shows_backlog),
        *_platform_statements(partition),
    ])  # fmt: skip


def _send_statements(sid: str, queue_arns: Sequence[str]) -> list[Policy]:
    return [_allow_statement(sid, list(queue_arns), "sqs:SendMessage")] if queue_arns else []


def _backlog_statements(queue_arns: Sequence[str], shows_backlog: bool) -> list[Policy]:
    return (
        [_allow_statement("Backlog", list(queue_arns), "sqs:GetQueueAttributes")]
        if shows_backlog
        else []
    )


def _platform_statements(partition: str) -> list[Policy]:
    """Return the permissions of Elastic Beanstalk's own programs on a worker machine."""
    arn = f"arn:{partition}"
    buckets = [f"{arn}:s3:::elasticbeanstalk-*", f"{arn}:s3:::elasticbeanstalk-*/*"]
    health = [f"{arn}:elasticbeanstalk:*:*:{each}/*" for each in ("application", "environment")]
    table = f"{arn}:dynamodb:*:*:table/*-stack-AWSEBWorkerCronLeaderRegistry*"
    return [
        _allow_statement(
            "PeriodicTasks", table, "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem",
            "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query",
            "dynamodb:Scan", "dynamodb:UpdateItem",
        ),
        _allow_statement("Metrics", "*", "cloudwatch:PutMetricData"),
        _allow_statement(
            "Logs", f"{arn}:logs:*:*:log-group:/aws/elasticbeanstalk*",
            "logs:CreateLogStream", "logs:PutLogEvents",
        ),
        _allow_statement("Bundles", buckets, "s3:Get*", "s3:List*", "s3:PutObject"),
        _allow_statement("Health", health, "elasticbeanstalk:PutInstanceStatistics"),
    ]  # fmt: skip


def _allow_statement(sid: str, resource: str | list[str], *actions: str) -> Policy:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resource}


def _policy_document(statements: list[Policy]) -> Policy:
    return {"Version": "2012-10-17", "Statement": statements}
