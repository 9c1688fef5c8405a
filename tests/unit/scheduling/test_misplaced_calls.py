from __future__ import annotations

import asyncio
import warnings
from unittest import mock

import pytest
from django.apps import apps
from django.core import mail
from django.db import transaction

from beanstalk_dispatch.client import (
    Call,
    aschedule_function,
    schedule,
    schedule_function,
    schedule_many,
)
from beanstalk_dispatch.exceptions import SendError
from beanstalk_dispatch.testing import capture_tasks
from tests.conftest import Environment


@pytest.fixture
def _outside_of_tests(monkeypatch: pytest.MonkeyPatch, sqs_env: Environment) -> None:
    """No test runs, as far as the package can see."""
    monkeypatch.delattr(mail, "outbox")
    sqs_env()


def _schedule() -> None:
    schedule_function("jobs", "record", 1)


@pytest.mark.usefixtures("_outside_of_tests")
def test_in_a_coroutine() -> None:
    async def view() -> None:
        await aschedule_function("jobs", "record", 1)  # does not warn
        schedule_many("jobs", [Call("record", [1])])

    with pytest.warns(RuntimeWarning, match="write await aschedule_function") as caught:
        asyncio.run(view())
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.usefixtures("_outside_of_tests")
def test_once_for_each_line() -> None:
    async def view() -> None:
        for _ in range(3):
            _schedule()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        asyncio.run(view())
    assert len(caught) == 1


@pytest.mark.usefixtures("_outside_of_tests")
def test_while_django_starts() -> None:
    with (
        mock.patch.object(apps, "ready", False),
        pytest.warns(
            RuntimeWarning, match="every process sends it, also that of 'manage.py check'"
        ),
    ):
        _schedule()


@pytest.mark.django_db
@pytest.mark.usefixtures("_outside_of_tests")
def test_within_a_transaction() -> None:
    with (
        transaction.atomic(),
        pytest.warns(RuntimeWarning, match="sent before this transaction commits") as caught,
    ):
        _schedule()
    assert caught[0].filename == __file__


@pytest.mark.django_db
@pytest.mark.parametrize(
    "variables",
    [{"DISPATCH_ON_COMMIT": "False"}, {"DISPATCH_POLICIES": '{"record": {"on_commit": false}}'}],
)
@pytest.mark.usefixtures("_outside_of_tests")
def test_within_a_transaction_on_purpose(sqs_env: Environment, variables: dict[str, str]) -> None:
    sqs_env(**variables)
    _schedule()
    schedule("jobs", Call("record", [1]), on_commit=False)


def test_of_a_test_that_sends_to_aws(
    sqs_env: Environment, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL=None)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", moto)
    with pytest.warns(RuntimeWarning, match=r"a test sends .*capture_tasks\(\)"):
        _schedule()
    with capture_tasks():
        _schedule()


def test_of_a_test_that_cannot_send(sqs_env: Environment) -> None:
    sqs_env(DISPATCH_SQS_ENDPOINT_URL="http://127.0.0.1:1")
    with pytest.raises(SendError) as caught:
        _schedule()
    assert "testing.capture_tasks()" in caught.value.__notes__[0]
