"""What a project sees whose SDK lacks the calls that this package makes, such as SDK 3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sentry_sdk
from sentry_sdk.transport import HttpTransport

from beanstalk_dispatch.contrib.sentry import client, setup
from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.message import Message
from beanstalk_dispatch.messages.outcomes import Outcome
from tests import sentry_sdk_support
from tests.conftest import Environment
from tests.runs import deliver


@pytest.fixture
def unsupported(env: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delattr(sentry_sdk, "start_transaction", raising=False)
    client.is_supported.cache_clear()
    setup.init_on_first_use.cache_clear()
    env(
        SENTRY_DSN="http://public@127.0.0.1:9/1",
        DISPATCH_SAFE_TASK="beanstalk_dispatch.contrib.sentry.SentrySafeTask",
        DISPATCH_TABLE="record=tests.jobs.record fail=tests.jobs.fail",
    )
    yield
    client.is_supported.cache_clear()
    sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.parametrize("is_projects_own", [False, True])
def test_tasks_run_and_one_line_says_what_to_install(
    unsupported: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    is_projects_own: bool,
) -> None:
    sent: list[object] = []
    monkeypatch.setattr(HttpTransport, "capture_envelope", sent.append)
    if is_projects_own:
        sentry_sdk.init(
            "http://public@127.0.0.1:9/1", default_integrations=False,
            auto_enabling_integrations=False,
        )  # fmt: skip
    outcomes = []
    for function in ("record", "fail"):
        body = Message(function=function).encode(queue="q")
        outcomes.append(deliver(body, Delivery(queue="q", message_id=function)).outcome)
    assert outcomes == [Outcome.DONE, Outcome.FAILED]
    lines = [each.getMessage() for each in caplog.records if "Sentry" in each.getMessage()]
    (line,) = lines
    assert line == (
        f"Sentry gets nothing from tasks error=sentry-sdk {sentry_sdk.VERSION} is not supported; "
        "pip install 'django-beanstalk-dispatch[sentry]'"
    )
    assert "observer failed" not in caplog.text
    assert sent == []


def test_its_tests_are_left_out(unsupported: None) -> None:
    with pytest.raises(pytest.skip.Exception):
        sentry_sdk_support.skip_unless_supported()
