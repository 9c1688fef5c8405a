"""A Lambda function with an SQS event source mapping, as a template of SAM or Terraform."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from beanstalk_dispatch.exceptions import ConfigurationError

from .plan import PlannedQueue
from .properties import Property
from .property_formats import double_quoted, hcl_string
from .template_files import fill_in

HANDLER: Final = "beanstalk_dispatch.contrib.aws_lambda.handler"
MAX_TIMEOUT_SECONDS: Final = 900
"""The longest timeout of a function.

https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""
VISIBILITY_FACTOR: Final = 6
"""The recommended visibility timeout of the queue, as a multiple of the function's timeout.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
"""
MIN_RECEIVES: Final = 5
"""The smallest maxReceiveCount that AWS advises, by the same page."""
RECEIVES: Final = 10
MIN_CONCURRENCY: Final = 2
MAX_CONCURRENCY: Final = 1000
"""The bounds of an event source mapping's maximum concurrency.

Without one, SQS calls up to 1,250 functions at a time.
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
"""
DEFAULT_CONCURRENCY: Final = 10
"""The invocations at a time of a function, each of which has database connections of its own."""
_END_SECONDS: Final = 30
_TASKS_IN_A_BATCH: Final = 4
"""The number of tasks of the full time limit that fit into one invocation, if 900 s allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LambdaPlan:
    """One function that runs the tasks of one queue."""

    name: str
    """The name of the function."""
    queue: PlannedQueue
    timeout: int
    """The function's timeout in seconds."""
    properties: Sequence[Property]
    """The environment of the function."""
    max_concurrency: int = DEFAULT_CONCURRENCY
    """The number of invocations at a time."""
    other_arns: Sequence[str] = ()
    """The ARNs of queues that exist and to which the tasks may send."""

    @property
    def visibility(self) -> int:
        """The queue's visibility timeout in seconds."""
        return VISIBILITY_FACTOR * self.timeout

    @property
    def variables(self) -> Mapping[str, str]:
        """The function's environment, without secrets."""
        return {each.name: each.value for each in self.properties if not each.is_secret}

    @property
    def secrets(self) -> Sequence[str]:
        """The variables that are left out."""
        return [each.name for each in self.properties if each.is_secret]


def function_timeout(time_limit: float) -> int:
    """Return the timeout of a function whose tasks may take ``time_limit`` seconds.

    Raise ConfigurationError if Lambda ends every function before such a task.
    """
    longest = MAX_TIMEOUT_SECONDS - _END_SECONDS
    if time_limit > longest:
        raise ConfigurationError(
            f"a task may take {time_limit:g} s, but Lambda ends a function after "
            f"{MAX_TIMEOUT_SECONDS} s; set its time limit to {longest} s or less, or run it with "
            "beanstalk_worker"
        )
    wanted = max(math.ceil(time_limit) + _END_SECONDS, math.ceil(time_limit * _TASKS_IN_A_BATCH))
    return min(wanted, MAX_TIMEOUT_SECONDS)


# --- the templates ---------------------------------------------------------------------------


def as_sam(plan: LambdaPlan) -> str:
    """Return a template of AWS SAM: the queue, its dead-letter queue, the function and the mapping.

    https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-resource-function.html
    """
    variables = [
        f"          {name}: {double_quoted(value)}" for name, value in plan.variables.items()
    ]
    return _fill_in(
        "lambda.sam.yaml",
        plan,
        name=double_quoted(plan.name),  # without quotes 007 is a number, and no is false
        queue=double_quoted(plan.queue.name),
        dead_letters=double_quoted(plan.queue.dead_letters.name),
        fifo="      FifoQueue: true\n" if plan.queue.is_fifo else "",
        variables="\n".join(variables),
        others=_sam_statement(plan.other_arns) if plan.other_arns else "",
    )


def _sam_statement(arns: Sequence[str]) -> str:
    statement = f'{{Effect: Allow, Action: "sqs:SendMessage", Resource: {json.dumps(arns)}}}'
    lines = ['- Version: "2012-10-17"', "  Statement:", f"    - {statement}"]
    return "".join(f"        {line}\n" for line in lines)


def as_terraform(plan: LambdaPlan) -> str:
    """Return resources of Terraform's provider for AWS, which do the same."""
    senders = ["aws_sqs_queue.dead_letters.arn", *map(hcl_string, plan.other_arns)]
    width = max(map(len, plan.variables))
    lines = [
        f"      {name:<{width}} = {hcl_string(value)}" for name, value in plan.variables.items()
    ]
    return _fill_in(
        "lambda.tf",
        plan,
        name=hcl_string(plan.name),
        queue=hcl_string(plan.queue.name),
        dead_letters=hcl_string(plan.queue.dead_letters.name),
        fifo=str(plan.queue.is_fifo).lower(),
        partition=plan.queue.partition,
        variables="\n".join(lines),
        senders=f"[{', '.join(senders)}]" if plan.other_arns else senders[0],
    )


def _fill_in(template: str, plan: LambdaPlan, **strings: str) -> str:
    """Fill in ``strings``, which each format writes its own way, and the figures."""
    comments = [f"# {name} is a secret and left out\n" for name in plan.secrets]
    return "".join(comments) + fill_in(
        template,
        **strings,
        visibility=plan.visibility,
        receives=RECEIVES,
        handler=HANDLER,
        timeout=plan.timeout,
        max_concurrency=plan.max_concurrency,
    )


TEMPLATES: Final[Mapping[str, Callable[[LambdaPlan], str]]] = {
    "sam": as_sam,
    "terraform": as_terraform,
}
