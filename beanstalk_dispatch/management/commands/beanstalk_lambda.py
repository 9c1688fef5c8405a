"""``manage.py beanstalk_lambda`` prints a Lambda function's template, or checks its queue."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.checks import CheckMessage
from django.core.management.base import CommandError

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.variables import MAX_RECEIVES
from beanstalk_dispatch.deploying import overview
from beanstalk_dispatch.deploying.lambda_files import (
    DEFAULT_CONCURRENCY,
    MAX_CONCURRENCY,
    MAX_TIMEOUT_SECONDS,
    MIN_CONCURRENCY,
    RECEIVES,
    TEMPLATES,
    LambdaPlan,
    function_timeout,
)
from beanstalk_dispatch.deploying.listed_tasks import longest_time_limit
from beanstalk_dispatch.deploying.plan import make_plan
from beanstalk_dispatch.deploying.properties import Property, properties_in_effect, with_values
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.management.arguments import integer
from beanstalk_dispatch.management.printing import ReportingCommand
from beanstalk_dispatch.problems import lambda_check
from beanstalk_dispatch.sqs.inspection import InspectionError, Inspector
from beanstalk_dispatch.sqs.opening import resolve_address


class Command(ReportingCommand):
    """The command that makes a plan of configuration and options, and prints it as a template."""

    help = "Print a template for a Lambda function that runs the tasks, or check its queue."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of docs/lambda.md."""
        # fmt: off
        add = parser.add_argument
        add("--format", choices=TEMPLATES, default="sam",
            help="the form of the template (default %(default)s)")
        add("--queue", metavar="ALIAS", help="the queue to read (default: the first one)")
        add("--timeout", type=integer(1, MAX_TIMEOUT_SECONDS), metavar="SECONDS",
            help="the function's timeout (default: by the longest time limit of a task)")
        add("--max-concurrency", type=integer(MIN_CONCURRENCY, MAX_CONCURRENCY), metavar="NUMBER",
            default=DEFAULT_CONCURRENCY, help="invocations at a time (default %(default)s)")
        add("--region", help="the region of a queue that is given by name")
        add("--account", metavar="NUMBER", help="the AWS account of a queue that is given by name")
        add("--check", action="store_true",
            help="print no template; ask SQS whether the queue fits the function, and exit with 1 "
                 "if it does not")
        # fmt: on
        self.add_report_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the template, or the problems of the queue."""
        config = get_config()
        seconds = options["timeout"] or function_timeout(longest_time_limit(config))
        if options["check"]:
            self.report(_check_queue(config, options["queue"], seconds), options)
            return
        plan = _make_plan(config, seconds, options)
        for warning in overview.warnings():
            self.stderr.write(f"warning: {warning}")
        self.stdout.write(TEMPLATES[options["format"]](plan), ending="")


def _check_queue(config: Config, alias: str | None, seconds: int) -> Iterator[CheckMessage]:
    name = alias or next(iter(config.queues), None)
    if name is None:
        raise ConfigurationError("no queue is configured; add --queue")
    address = resolve_address(name, config)
    inspector = Inspector(config)
    try:
        attributes = inspector.attributes(address, inspector.queue_url(address))
    except InspectionError as exc:
        raise CommandError(f"SQS does not say what the queue {name!r} is like: {exc}") from exc
    yield from lambda_check.check(name, timeout=seconds, attributes=attributes)


def _make_plan(config: Config, seconds: int, options: Mapping[str, Any]) -> LambdaPlan:
    module = str(getattr(settings, "SETTINGS_MODULE", ""))
    name = (module.partition(".")[0] or "project").replace("_", "-")
    where = {key: options[key] for key in ("region", "account", "queue")}
    plan = make_plan(config, name=name, **where)
    own = {plan.read_queue.arn, plan.read_queue.dead_letters.arn}
    return LambdaPlan(
        name=f"{name}-worker",
        queue=plan.read_queue,
        other_arns=[each.arn for each in plan.configured_queues if each.arn not in own],
        timeout=seconds,
        max_concurrency=options["max_concurrency"],
        properties=[
            Property(name=ENVIRONMENT_VARIABLE, value=module),
            *with_values(
                properties_in_effect(worker=True),
                {**plan.queue_variables, MAX_RECEIVES.variable: str(RECEIVES)},
            ),
        ],
    )
