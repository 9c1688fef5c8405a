"""BEANSTALK_DISPATCH_POLICIES: read strictly, and applied over the options of the code."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO

import pytest
from asgiref.sync import async_to_sync
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import transaction

from beanstalk_dispatch.client import Call, aschedule, schedule, schedule_many
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.policies import policies, policy_of
from beanstalk_dispatch.deploying.listed_tasks import listed_tasks, longest_time_limit
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from beanstalk_dispatch.running.definitions.dispatch_table import entry
from beanstalk_dispatch.safe_task import SafeTask
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import Environment
from tests.runs import deliver

MINUTE = timedelta(minutes=1)
VARIABLE = "BEANSTALK_DISPATCH_POLICIES"


class Report(SafeTask, max_attempts=6, backoff=30, timeout=60):
    isolation = "thread"

    def run(self) -> None:
        raise ValueError("told to fail")


class Decided(SafeTask):
    @property
    def timeout_timedelta(self) -> timedelta:  # type: ignore[override]
        return timedelta(seconds=7)

    def run(self) -> None:
        """Do nothing."""


class Company(SafeTask, timeout=20):
    """As BEANSTALK_DISPATCH_SAFE_TASK may name it."""


@pytest.fixture
def policy(env: Environment) -> Callable[[str], None]:
    def set_policy(value: str) -> None:
        env(
            DISPATCH_TABLE="record=tests.jobs.record other=tests.jobs.fail "
            f"report={__name__}.Report decided={__name__}.Decided",
            DISPATCH_POLICIES=value,
            WORKER="True",
        )

    return set_policy


@pytest.mark.parametrize(
    "value",
    [
        "charge.timeout=60 shop.tasks.max_attempts=3,charge.isolation=fresh",
        '{"charge": {"timeout": 60, "isolation": "fresh"}, "shop.tasks": {"max_attempts": 3}}',
        '{"charge.timeout": "1m", "shop.tasks.max_attempts": "3", "charge.isolation": "fresh"}',
        {"charge": {"timeout": MINUTE, "isolation": "fresh"}, "shop.tasks": {"max_attempts": 3}},
    ],
)
def test_each_way_to_write_them(value: object) -> None:
    assert policies(value) == {
        "charge.timeout": MINUTE,
        "charge.isolation": "fresh",
        "shop.tasks.max_attempts": 3,
    }


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("charge.retries=3", "'charge.retries' is not task.option; the options are max_attempts, "),
        ("timeout=3", "'timeout' is not task.option"),
        ("charge.timeout", "'charge.timeout' is not a pair"),
        ("charge.max_attempts=0", "charge.max_attempts: '0' is not an integer from 1 to 1000"),
        ('{"a": {"expires": "1h"}, "a.expires": "2h"}', "'a.expires' is given twice"),
        ('{"a": 3}', "'a' is not task.option"),
        ("a.unique_by=account-id", "a.unique_by: 'account-id' is not a name, or names such as"),
        ({"a": {"unique_by": [7]}}, "is not a name, or names such as account_id.month"),
        ("3", "'3' is not a pair"),
        ({5: 3}, "'5' is not task.option"),
        (3, "expected a mapping of strings, not int"),
    ],
)
def test_a_wrong_one_is_an_error(value: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        policies(value)


def test_all_wrong_ones_are_in_one_error(env: Environment) -> None:
    env(DISPATCH_POLICIES="a.timeout=long a.isolation=jail a.expires=1h b.on_commit=maybe")
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    for wrong in ("a.timeout: 'long'", "a.isolation: 'jail'", "b.on_commit: 'maybe'"):
        assert wrong in str(caught.value)
    assert "a.expires" not in str(caught.value)


def test_a_name_wins_over_a_path_and_a_path_over_a_module() -> None:
    found = policies(
        "shop.tasks.timeout=1 shop.tasks.pay.timeout=2 pay.timeout=3 shop.tasks.expires=1h "
        "shop.tasks.pay.max_attempts=2"
    )
    named = policy_of(found, name="pay", path="shop.tasks.pay")
    assert named == {
        "timeout": timedelta(seconds=3), "max_attempts": 2, "expires": timedelta(hours=1),
    }  # fmt: skip
    assert policy_of(found, name="x", path="shop.tasks.pay")["timeout"] == timedelta(seconds=2)
    assert policy_of(found, name="x", path="shop.tasks.x")["timeout"] == timedelta(seconds=1)
    assert policy_of(found, name="x", path="shop.other.x") == {}


def test_it_wins_over_the_class(policy: Callable[[str], None]) -> None:
    policy("report.max_attempts=2 report.timeout=5m report.isolation=fresh report.expires=1h")
    found = entry("report", get_config())
    task, _ = found.make_task()
    assert (task.max_retries, task.timeout_timedelta) == (1, timedelta(minutes=5))
    assert task.retry_backoff == 30
    assert (found.isolation, found.expires) == ("fresh", 3600)
    assert longest_time_limit(get_config()) == 300


def test_it_wins_over_the_configured_class(policy: Callable[[str], None], env: Environment) -> None:
    policy("report.max_attempts=2 decided.timeout=1s tests.jobs.timeout=50")
    env(DISPATCH_SAFE_TASK=f"{__name__}.Company")
    tasks = {name: entry(name, get_config()).make_task()[0] for name in ("record", "decided")}
    assert tasks["record"].timeout_timedelta == timedelta(seconds=50)
    assert tasks["decided"].timeout_timedelta == timedelta(seconds=7)


def test_it_decides_on_a_message(policy: Callable[[str], None]) -> None:
    policy("report.max_attempts=1 record.expires=1s")
    report = Message(function="report").encode(queue="q")
    result = deliver(report, Delivery(queue="q"))
    assert (result.outcome, result.is_final) == (Outcome.FAILED, True)
    late = Message(function="record", sent_at=5.0).encode(queue="q")
    assert deliver(late, Delivery(queue="q")).outcome is Outcome.EXPIRED


def scheduled_in_transaction(*calls: Call) -> int:
    """Return the number of messages that were sent before the commit."""
    with capture_tasks() as tasks, transaction.atomic():
        schedule_many("q", calls) if len(calls) > 1 else schedule("q", calls[0])
        return len(tasks)


@pytest.mark.django_db(transaction=True)
def test_a_task_may_wait_for_the_commit(policy: Callable[[str], None], env: Environment) -> None:
    record, other = Call("record"), Call("other")
    policy("record.on_commit=true")
    assert scheduled_in_transaction(record) == 0
    assert scheduled_in_transaction(other) == 1
    assert scheduled_in_transaction(other, record) == 0
    with capture_tasks() as tasks, transaction.atomic():
        schedule("q", record, on_commit=False)
        assert len(tasks) == 1
    env(DISPATCH_ON_COMMIT="True")
    policy("record.on_commit=false")
    assert scheduled_in_transaction(record) == 1
    assert scheduled_in_transaction(record, other) == 0


@pytest.mark.django_db(transaction=True)
def test_a_coroutine_waits_too(policy: Callable[[str], None]) -> None:
    policy("record.on_commit=true")

    def left_until_the_commit() -> int:
        with capture_tasks() as tasks, transaction.atomic():
            async_to_sync(aschedule)("q", Call("record"))
            return len(tasks)

    assert get_config().may_wait_for_commits
    assert left_until_the_commit() == 0


def test_the_command_shows_each_option_with_its_place(policy: Callable[[str], None]) -> None:
    policy("report.backoff=1m report.on_commit=true tests.jobs.expires=1d")
    [report] = [each for each in listed_tasks(get_config()) if each.name == "report"]
    assert report.policy == {
        "max_attempts": ("6", "Report"),
        "backoff": ("0:01:00", VARIABLE),
        "timeout": ("60", "Report"),
        "isolation": ("thread", "Report"),
        "on_commit": ("True", VARIABLE),
    }
    out = StringIO()
    call_command("beanstalk_config", stdout=out)
    assert "OPTION OF  OPTION        VALUE           FROM\n" in out.getvalue()
    assert f"record     expires       1 day, 0:00:00  {VARIABLE}\n" in out.getvalue()
    out = StringIO()
    call_command("beanstalk_config", format="json", stdout=out)
    tasks = {each["name"]: each["policy"] for each in json.loads(out.getvalue())["tasks"]}
    assert tasks["other"] == {"expires": ["1 day, 0:00:00", VARIABLE]}


def test_the_command_writes_what_it_reads(policy: Callable[[str], None], env: Environment) -> None:
    value = "report.backoff=90s report.on_commit=True record.max_attempts=2 report.unique_by=a+b"
    env(DISPATCH_LEASE_CACHE="default")
    policy(value)
    out = StringIO()
    call_command("beanstalk_config", format="json", stdout=out)
    [shown] = [e for e in json.loads(out.getvalue())["variables"] if e["name"] == VARIABLE]
    assert policies(shown["value"]) == policies(value)


def test_a_policy_of_no_task_is_a_warning(policy: Callable[[str], None]) -> None:
    policy("tests.jobs.timeout=1 tests.jobs.fail.timeout=1 recrod.timeout=1 report.timeout=1")
    messages = [each for each in run_checks() if each.id == "beanstalk_dispatch.W025"]
    assert [each.msg for each in messages] == [
        f"{VARIABLE} has options of 'recrod', which is not a task here."
    ]
