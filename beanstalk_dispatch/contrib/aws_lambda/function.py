"""The handler of a Lambda function: starts Django once, then runs one event after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import django
from django.apps import apps
from django.db import connections

from beanstalk_dispatch.conf import Config, get_config
from beanstalk_dispatch.conf.variables import WORKER
from beanstalk_dispatch.consumers.lambda_.batch import Batch
from beanstalk_dispatch.consumers.lambda_.event import records_of
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.problems import check_log
from beanstalk_dispatch.problems.checks.endpoint import without_endpoint
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.running.running_tasks import RUNNING
from beanstalk_dispatch.signals import invocation_finished
from beanstalk_dispatch.sqs.warming import warm_clients


class Context(Protocol):
    """The part of Lambda's context object that is used.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends this invocation."""


_ANSWER_SECONDS: Final = 0.5
"""Seconds of an invocation that are kept to send its answer."""

Response = dict[str, list[dict[str, str]]]
Handler = Callable[[Mapping[str, Any], Context], Response]


def start() -> Handler:
    """Start Django, unless the project has, import the listed tasks, and make the clients of SQS.

    Raise ConfigurationError if the configuration is wrong, or if this is not a worker.
    """
    if not apps.ready:
        django.setup()
    config = _worker_config()
    check_log.do_not_log_on_first_request()
    with without_endpoint():
        check_log.log_failing()
    for name in dispatch_table.listed_names(config):
        with suppress(Exception, SystemExit):  # its messages are refused with the reason
            dispatch_table.entry(name, config)
    RUNNING.report_cut_tasks(config)
    with suppress(Exception):  # the first send reports it
        warm_clients(config)  # in the init phase, which has a whole CPU
    _prepare_for_snapshot()
    return handle


def _prepare_for_snapshot() -> None:
    """Leave nothing in a snapshot of SnapStart that the processes made of it must not share.

    https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    """
    with suppress(ImportError):  # it is part of Lambda's runtime
        import snapshot_restore_py  # noqa: PLC0415

        snapshot_restore_py.register_before_snapshot(connections.close_all)
        snapshot_restore_py.register_after_restore(random.seed)  # of the pauses before retries


def handle(event: Mapping[str, Any], context: Context) -> Response:
    """Run the messages of an event, and report those that SQS is to deliver again.

    The event source mapping must have ReportBatchItemFailures, or SQS deletes these too:
    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html

    Raise ValueError if the event does not come from an event source mapping of SQS, and
    ConfigurationError if the configuration is wrong. Then all its messages are delivered again.
    """
    records = records_of(event)
    _worker_config()
    batch = Batch(records, seconds=_seconds_left(context))
    failures = [{"itemIdentifier": each} for each in batch.run()]
    seconds = max(_seconds_left(context) - _ANSWER_SECONDS, 0.0)
    invocation_finished.send_robust(sender=handle, seconds=seconds)
    return {"batchItemFailures": failures}


def _seconds_left(context: Context) -> float:
    return context.get_remaining_time_in_millis() / 1000


def _worker_config() -> Config:
    config = get_config()
    if not config.worker:
        variable = WORKER.variable
        raise ConfigurationError(
            f"this function is not a worker; set {variable}=True in its environment"
        )
    return config
