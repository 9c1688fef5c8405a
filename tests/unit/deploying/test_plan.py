from __future__ import annotations

from typing import Any

import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.conf.queue_address import QueueAddress
from beanstalk_dispatch.deploying.plan import Plan, PlannedQueue, make_plan
from beanstalk_dispatch.exceptions import ConfigurationError
from tests.bundles import SHOP
from tests.conftest import TABLE, Environment

ACCOUNT = "123456789012"
URL = f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/shop-mail"
WHERE = {"region": "eu-west-1", "account": ACCOUNT}


def plan(**given: Any) -> Plan:
    return make_plan(get_config(), name="shop", application=SHOP, **given)


def test_a_project_without_queues_gets_one(env: Environment) -> None:
    env(DISPATCH_TABLE=TABLE)
    found = plan(**WHERE)
    assert (found.web, found.worker, found.http_path) == (
        "shop-web", "shop-worker", "/beanstalk_dispatch/dispatcher",
    )  # fmt: skip
    assert [queue.alias for queue in found.queues] == ["work"]
    assert found.read_queue.url == f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/shop-work"
    assert plan(queue="mail", **WHERE).read_queue.alias == "mail"


def test_region_and_account_are_those_of_the_queues(env: Environment) -> None:
    env(DISPATCH_QUEUES=f"mail={URL} work=arn:aws:sqs:us-west-2:210987654321:jobs")
    found = plan(queue="work")
    assert [each.url for each in found.queues] == [
        URL, "https://sqs.us-west-2.amazonaws.com/210987654321/jobs",
    ]  # fmt: skip
    assert found.read_queue.arn == "arn:aws:sqs:us-west-2:210987654321:jobs"
    assert plan().read_queue.alias == "mail"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "the region of the queue 'work' is not known; add --region"),
        ({"region": "eu-west-1"}, "account of the queue 'work' is not known; add --account"),
        ({"queue": "other", **WHERE}, "there is no queue 'other'; known: work"),
        ({"region": "eu", "account": ACCOUNT}, "'arn:aws:sqs:eu:123456789012:jobs' is not the ARN"),
        ({"region": "eu-west-1", "account": "12"}, "an account of 12 digits"),
    ],
)
def test_what_is_missing_is_said(env: Environment, given: dict[str, Any], error: str) -> None:
    env(DISPATCH_QUEUES="work=jobs")
    with pytest.raises(ConfigurationError, match=error):
        plan(**given)


def test_nobody_reads_the_dead_letter_queue_of_the_configuration(env: Environment) -> None:
    env(DISPATCH_QUEUES="dead=jobs-dead-letter work=jobs", DISPATCH_DEAD_LETTER_QUEUE="dead")
    found = plan(**WHERE)
    assert [queue.alias for queue in found.queues] == ["work"]
    assert found.read_queue.alias == "work"
    assert list(found.warnings()) == []
    assert list(found.dead_letter_queues) == [f"arn:aws:sqs:eu-west-1:{ACCOUNT}:jobs-dead-letter"]
    with pytest.raises(ConfigurationError, match="there is no queue 'dead'; known: work"):
        plan(queue="dead", **WHERE)


@pytest.mark.parametrize("given", ["shop-dead", f"arn:aws:sqs:eu-west-1:{ACCOUNT}:shop-dead"])
def test_a_dead_letter_queue_without_aliases_gets_one(env: Environment, given: str) -> None:
    env(DISPATCH_DEAD_LETTER_QUEUE=given)
    found = plan(**WHERE)
    assert found.dead_letter_queue
    assert found.dead_letter_queue.alias == "shop-dead"
    assert found.dead_letter_queue.arn == f"arn:aws:sqs:eu-west-1:{ACCOUNT}:shop-dead"
    assert [each.alias for each in found.queues] == ["work"]


def test_a_dead_letter_queue_alone_is_not_enough(env: Environment) -> None:
    env(DISPATCH_QUEUES="dead=jobs-dead-letter", DISPATCH_DEAD_LETTER_QUEUE="dead")
    with pytest.raises(ConfigurationError, match="no queue besides the dead-letter queue"):
        plan(**WHERE)


def test_a_local_queue_has_no_account(env: Environment) -> None:
    env(
        DISPATCH_QUEUES="work=http://127.0.0.1:5000/000000000000/jobs", DISPATCH_SQS_REGION="eu-a-1"
    )
    with pytest.raises(ConfigurationError, match="account"):
        plan()


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("eu-west-1", "https://sqs.eu-west-1.amazonaws.com/1/q"),
        ("cn-north-1", "https://sqs.cn-north-1.amazonaws.com.cn/1/q"),
        ("us-gov-west-1", "https://sqs.us-gov-west-1.amazonaws.com/1/q"),
    ],
)
def test_each_part_of_aws_has_its_urls(region: str, url: str) -> None:
    queue = PlannedQueue(alias="q", name="q", region=region, account=ACCOUNT)
    assert queue.url == url.replace("/1/", f"/{ACCOUNT}/")
    assert QueueAddress.parse(queue.url).region == region


def test_the_dead_letters_of_a_fifo_queue_are_a_fifo_queue() -> None:
    queue = PlannedQueue(alias="q", name="q.fifo", region="eu-west-1", account=ACCOUNT)
    assert queue.dead_letters.name == "q-dead-letter.fifo"
    assert queue.dead_letters.is_fifo


def test_the_daemon_opens_as_many_connections_as_can_run(env: Environment) -> None:
    assert plan(**WHERE).connections == 15
    assert plan(processes=4, threads=40, **WHERE).connections == 100


def test_the_ladder_and_the_schedules_are_those_of_the_tasks(env: Environment) -> None:
    env(DISPATCH_TABLE="night=tests.unit.deploying.test_plan.night record=tests.jobs.record",
        DISPATCH_TASK_TIMEOUT="4m")  # fmt: skip
    found = plan(**WHERE)
    assert (found.ladder.task, found.ladder.visibility) == (240, 300)
    assert found.schedules == {"night": "0 4 * * *"}


def test_queues_that_nobody_reads_are_said(env: Environment) -> None:
    assert list(plan(**WHERE).warnings()) == []
    env(DISPATCH_QUEUES="mail=shop-mail work=shop-work")
    (warning,) = plan(**WHERE).warnings()
    assert "does not read 'work'" in warning
    assert "--queue work --worker shop-worker-work" in warning


def test_a_fifo_queue_has_no_periodic_tasks(env: Environment) -> None:
    env(DISPATCH_QUEUES="orders=orders.fifo")
    assert list(plan(**WHERE).warnings()) == []
    env(DISPATCH_TABLE="night=tests.unit.deploying.test_plan.night")
    (warning,) = plan(**WHERE).warnings()
    assert "reads the FIFO queue 'orders', so the daemon runs no periodic task" in warning


def night() -> None:
    raise NotImplementedError  # pragma: no cover - only looked at


night.schedule = "0 4 * * *"  # type: ignore[attr-defined]
