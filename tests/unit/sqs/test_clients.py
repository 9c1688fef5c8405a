from __future__ import annotations

from typing import Any

import boto3
import pytest

from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.sqs.clients import Clients
from beanstalk_dispatch.sqs.opening import open_queue
from beanstalk_dispatch.sqs.timeouts import (
    SHORT_TIMEOUTS,
    Timeouts,
    long_poll_timeouts,
    send_timeouts,
)
from tests.conftest import Environment

ACCOUNT = "123456789012"


def test_the_region_comes_from_the_address(env: Environment) -> None:
    env(
        DISPATCH_SQS_REGION="eu-west-1",
        DISPATCH_QUEUES=f"here=https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/a "
        f"there=arn:aws:sqs:us-west-2:{ACCOUNT}:b near=http://127.0.0.1:9/1/c",
        DISPATCH_SQS_KEY="k",
        DISPATCH_SQS_SECRET="s",
    )
    metas = {name: open_queue(name).client.meta for name in ("here", "there", "near")}
    assert {n: (m.region_name, m.endpoint_url) for n, m in metas.items()} == {
        "here": ("eu-west-1", "https://sqs.eu-west-1.amazonaws.com"),
        "there": ("us-west-2", "https://sqs.us-west-2.amazonaws.com"),
        "near": ("eu-west-1", "http://127.0.0.1:9"),
    }


@pytest.mark.parametrize(
    ("variables", "region"),
    [({}, "us-east-1"), ({"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
     ({"AWS_REGION": "eu-west-3"}, "eu-west-3")],
)  # fmt: skip
def test_without_one_there_the_region_comes_from_the_environment(
    env: Environment, variables: dict[str, str], region: str
) -> None:
    env(DISPATCH_QUEUES="q=http://127.0.0.1:9/1/q", AWS_ACCESS_KEY_ID="k",
        AWS_SECRET_ACCESS_KEY="s", **variables)  # fmt: skip
    assert open_queue("q").client.meta.region_name == region


@pytest.fixture
def sessions(env: Environment, monkeypatch: pytest.MonkeyPatch) -> list[boto3.session.Session]:
    """The boto3 sessions made since, for two queues in each of two regions."""
    made: list[boto3.session.Session] = []

    class Session(boto3.session.Session):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            made.append(self)

    monkeypatch.setattr("boto3.session.Session", Session)
    arns = [
        f"{region[:2]}{number}=arn:aws:sqs:{region}:{ACCOUNT}:q{number}"
        for region in ("eu-west-1", "us-west-2")
        for number in (1, 2)
    ]
    env(DISPATCH_QUEUES=" ".join(arns), DISPATCH_SQS_KEY="k", DISPATCH_SQS_SECRET="s")
    return made


SEND_TIMEOUTS = Timeouts(connect=2, read=5, attempts=3, total=10)
TIMEOUTS = [SEND_TIMEOUTS, long_poll_timeouts(20), SHORT_TIMEOUTS]


@pytest.mark.parametrize(("wait", "read"), [(1, 10), (5, 10), (20, 25)])
def test_a_hung_long_poll_is_given_up_a_few_seconds_after_its_wait(wait: int, read: int) -> None:
    assert long_poll_timeouts(wait).read == read


def test_one_session_makes_all_clients(sessions: list[boto3.session.Session]) -> None:
    config = get_config()
    clients = Clients(config)
    made = {
        id(clients.get(config.queues[alias], timeouts))
        for alias in ("eu1", "us1")
        for timeouts in TIMEOUTS
    }
    assert (len(made), len(sessions)) == (6, 1)


@pytest.mark.parametrize("timeouts", TIMEOUTS)
def test_queues_of_one_region_share_a_client(
    sessions: list[boto3.session.Session], timeouts: Timeouts
) -> None:
    config = get_config()
    clients = Clients(config)
    first = clients.get(config.queues["eu1"], timeouts)
    assert clients.get(config.queues["eu2"], timeouts) is first
    assert clients.get(config.queues["us2"], timeouts) is not first


@pytest.mark.parametrize("timeouts", TIMEOUTS)
def test_a_client_has_the_timeouts_that_were_asked_for(
    sessions: list[boto3.session.Session], timeouts: Timeouts
) -> None:
    config = get_config()
    made: Any = Clients(config).get(config.queues["eu1"], timeouts).meta.config
    assert (made.connect_timeout, made.read_timeout) == (timeouts.connect, timeouts.read)
    assert made.retries["total_max_attempts"] == timeouts.attempts


def test_other_clients_are_made_for_another_configuration(
    sessions: list[boto3.session.Session], env: Environment
) -> None:
    open_queue("eu1")
    env(DISPATCH_TASK_TIMEOUT="3s")
    open_queue("eu1")
    assert len(sessions) == 2


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AWS_REGION", "not a region", "InvalidRegionError: "),
        ("AWS_PROFILE", "nobody", "ProfileNotFound: "),
        ("AWS_ACCESS_KEY_ID", "alone", "PartialCredentialsError: "),
        ("AWS_ENDPOINT_URL", "nowhere", "ValueError: Invalid endpoint: nowhere"),
    ],
)
def test_a_client_that_cannot_be_made_is_a_send_error(
    env: Environment, variable: str, value: str, reason: str
) -> None:
    env(**{"DISPATCH_QUEUES": "jobs=a-queue", variable: value})
    with pytest.raises(SendError) as caught:
        open_queue("jobs")
    assert str(caught.value).startswith(f"cannot make a boto3 client for a-queue: {reason}")


@pytest.mark.parametrize(
    ("variable", "timeouts"),
    [
        (None, SEND_TIMEOUTS),
        ("5s", Timeouts(connect=1, read=2.5, attempts=3, total=5)),
        ("1m", Timeouts(connect=2, read=30, attempts=3, total=60)),
    ],
)
def test_all_attempts_of_a_send_fit_into_its_timeout(
    env: Environment, variable: str | None, timeouts: Timeouts
) -> None:
    env(DISPATCH_SEND_TIMEOUT=variable)
    assert send_timeouts(get_config()) == timeouts
