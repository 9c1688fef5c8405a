from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.checks import run_checks
from django.utils import timezone

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.contrib.outbox.checks import check
from beanstalk_dispatch.contrib.outbox.models import OutboxMessage
from tests.conftest import Environment
from tests.recording_sqs import Sqs

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.usefixtures("no_sender"),
]


def ids() -> list[str | None]:
    found = run_checks(databases=["default", "other"])
    return [each.id for each in found if each.id == "beanstalk_dispatch.W017"]


def test_what_has_waited_for_minutes_is_reported(sqs: Sqs, sqs_env: Environment) -> None:
    schedule_function("jobs", "record", 1)
    assert ids() == []
    OutboxMessage.objects.update(created_at=timezone.now() - timedelta(hours=1))
    assert ids() == ["beanstalk_dispatch.W017"]
    (found,) = check(databases=["default"])
    assert "1 messages for the queue 'jobs' wait in the outbox of the database 'default'" in (
        found.msg
    )
    sqs_env(DISPATCH_OUTBOX="off")
    assert ids() == []


def test_without_a_database_nothing_is_asked(sqs: Sqs) -> None:
    assert check() == []


def test_before_the_migration_there_is_nothing_to_report(sqs: Sqs, no_table: None) -> None:
    assert check(databases=["default"]) == []


def test_a_wrong_configuration_is_reported_elsewhere(sqs: Sqs, sqs_env: Environment) -> None:
    sqs_env(DISPATCH_OUTBOX="sometimes")
    assert check(databases=["default"]) == []
