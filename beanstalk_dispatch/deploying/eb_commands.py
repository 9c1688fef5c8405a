"""The commands of the AWS CLI and the EB CLI that create the parts of a plan, in order."""

from __future__ import annotations

import json
import secrets
import sys
import textwrap
from collections.abc import Iterator, Sequence
from shlex import quote
from typing import Final

from django.conf import ENVIRONMENT_VARIABLE

from beanstalk_dispatch.conf import Config
from beanstalk_dispatch.conf.secret_casts import Secret
from beanstalk_dispatch.conf.variables import ISOLATION, PERIODIC_TASKS, SIGNING_KEYS
from beanstalk_dispatch.conf.variables import MAX_RECEIVES as MAX_RECEIVES_VARIABLE
from beanstalk_dispatch.sqs.quotas import MAX_MESSAGE_BYTES

from .alarms import alarm_command, topic_commands
from .eb_files import TRUST_POLICY
from .ladder import MAX_RECEIVES
from .plan import Plan, PlannedQueue
from .properties import Property, properties_in_effect, with_values
from .property_formats import Export, as_eb
from .scaling import GROUP_PLACEHOLDER, IN_SERVICE, scaling_file
from .settings_module import variables_read
from .sqsd_options import options_file, policy_file
from .template_files import shell_commands

_CREATE: Final = "eb create {0} --instance_profile {0}"
_WEEKS: Final = 14 * 86400
"""Seconds for which a dead-letter queue keeps a message; as long as SQS allows."""


def fresh_key() -> Secret:
    """Return a signing key that nobody has used yet."""
    return Secret(secrets.token_urlsafe(32))


def commands(plan: Plan, config: Config, *, key: str | None) -> Iterator[str]:
    """Yield lines for a shell, with a comment above each step.

    ``key`` is a new signing key, which is written as plain text. With None the properties are
    written without one. What belongs to the other environments of the bundle is left out.
    """
    yield "# Commit the files first: the EB CLI deploys what is committed."
    version = ".".join(map(str, min(max(sys.version_info[:2], (3, 11)), (3, 14))))
    if plan.is_first:
        region = plan.read_queue.region
        yield f"eb init {quote(plan.name)} --platform python-{version} --region {region}"
    else:
        others = " and ".join(plan.existing.workers)
        yield f"# {plan.web} and {others} exist, so this is what {plan.worker} needs besides."
    steps = {
        "A role and an instance profile for each environment": _role_step(plan),
        "Each queue, with a dead-letter queue and an alarm when something is in that": _queue_step(
            plan
        ),
        "The environments, with a sample until they have their properties": _environment_step(plan),
        "The properties, on the web environment first": _property_step(plan, config, key),
        "The deployment": _deployment_step(plan),
    }
    found = {title: lines for title, step in steps.items() if (lines := list(step))}
    for number, (title, lines) in enumerate(found.items(), start=1):
        yield f"# {number}. {title}"
        yield from lines


def _role_step(plan: Plan) -> Iterator[str]:
    if plan.is_first:
        yield from _role_commands(plan.web)
    elif plan.new_queues:
        yield from _policy_command(plan.web)
    yield from _role_commands(plan.worker)
    if plan.is_first:
        yield from shell_commands("web_tier", role=plan.web, partition=plan.read_queue.partition)


def _role_commands(role: str) -> Iterator[str]:
    yield from shell_commands("role", role=role, trust_policy=TRUST_POLICY)
    yield from _policy_command(role)


def _policy_command(role: str) -> list[str]:
    return shell_commands("role_policy", role=role, policy=policy_file(role))


def _queue_step(plan: Plan) -> Iterator[str]:
    """Yield the commands for each dead-letter queue before its queue, which names it."""
    if plan.is_first:
        yield from topic_commands(plan)
    for queue in plan.new_queues:
        dead = queue.dead_letters
        redrive = {"deadLetterTargetArn": dead.arn, "maxReceiveCount": str(MAX_RECEIVES)}
        visibility = str(int(plan.ladder.visibility or 0))
        yield from _create_dead_letter_queue(dead)
        yield from _create_queue(
            queue, VisibilityTimeout=visibility, RedrivePolicy=json.dumps(redrive)
        )
        yield alarm_command(plan, dead)
    own = plan.dead_letter_queue
    if plan.is_first and own and own.arn not in [queue.dead_letters.arn for queue in plan.queues]:
        yield from [*_create_dead_letter_queue(own), alarm_command(plan, own)]


def _create_dead_letter_queue(dead: PlannedQueue) -> list[str]:
    return _create_queue(dead, MessageRetentionPeriod=str(_WEEKS))


def _create_queue(queue: PlannedQueue, **attributes: str) -> list[str]:
    fifo = {"FifoQueue": "true"} if queue.is_fifo else {}
    every = fifo | {"MaximumMessageSize": str(MAX_MESSAGE_BYTES)} | attributes
    return shell_commands(
        "queue", region=queue.region, name=queue.name, attributes=json.dumps(every)
    )


def _environment_step(plan: Plan) -> Iterator[str]:
    if plan.is_first:
        yield f"{_CREATE.format(quote(plan.web))} --sample"
    yield f"{_CREATE.format(quote(plan.worker))} --tier worker --sample"
    if not plan.is_shared:
        return
    where = {"region": plan.read_queue.region, "environment": plan.worker}
    yield from shell_commands("options", options=options_file(plan.worker), **where)
    if plan.max_instances is not None:
        # The group keeps its policy until the environment is rebuilt.
        policy, placeholder = scaling_file(plan), GROUP_PLACEHOLDER
        yield from shell_commands(
            "scaling", metric=IN_SERVICE, placeholder=placeholder, policy=policy, **where
        )


def _property_step(plan: Plan, config: Config, key: str | None) -> Iterator[str]:
    tiers = {plan.web: False, plan.worker: True}
    if not (plan.is_first or plan.new_queues):
        del tiers[plan.web]
    for environment, is_worker in tiers.items():
        properties = list(_exported_properties(plan, config, key, worker=is_worker))
        yield as_eb(Export(properties=properties, environment=environment))
    if not (plan.is_first or config.signing_keys):
        yield f"#    {SIGNING_KEYS.variable} has to be that of {plan.web}: eb printenv {plan.web}"
    yield from _comments_on_settings(plan)


def _deployment_step(plan: Plan) -> Iterator[str]:
    """Yield the worker environment first: it knows a new task before somebody schedules it."""
    yield f"eb deploy {quote(plan.worker)}"
    if plan.is_first or plan.new_queues:
        yield f"eb deploy {quote(plan.web)}"
    yield f"eb logs {quote(plan.worker)}"


def _exported_properties(
    plan: Plan, config: Config, key: str | None, *, worker: bool
) -> Iterator[Property]:
    """Yield the properties in effect, with queues by URL, the periodic tasks and the new key.

    A new environment runs tasks in processes of their own. The web tier asks for it, too, because
    it stops tasks.
    """
    replaced = dict(plan.queue_variables)
    if config.sources["isolation"] == "default":
        replaced[ISOLATION.variable] = "process"
    if worker:
        replaced[MAX_RECEIVES_VARIABLE.variable] = str(MAX_RECEIVES)
    if plan.schedules and worker:
        names: Sequence[str] = [*dict.fromkeys([*config.periodic_tasks, *plan.schedules])]
        replaced[PERIODIC_TASKS.variable] = " ".join(names)
    elif plan.periodic_elsewhere and worker:
        replaced[PERIODIC_TASKS.variable] = "off"
    if module := plan.application.settings:
        yield Property(name=ENVIRONMENT_VARIABLE, value=module)
    known = [each for each in properties_in_effect(worker=worker) if not each.is_secret]
    yield from with_values(known, replaced)
    if key:
        yield Property(name=SIGNING_KEYS.variable, value=key, is_secret=True)


def _comments_on_settings(plan: Plan) -> Iterator[str]:
    """Yield the names of the properties that the project's own settings read, without values."""
    found = variables_read(plan.application.settings)
    for names, sentence in (
        (found.required, "and that both environments need before the deployment"),
        (found.optional, "and that have a default"),
    ):
        own = sorted(name for name in names if not name.startswith("BEANSTALK_"))
        if own:
            yield f"#    Properties that {plan.application.settings} reads, {sentence}:"
            yield from textwrap.wrap(
                " ".join(own), 96, initial_indent="#      ", subsequent_indent="#      "
            )
