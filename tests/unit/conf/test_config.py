from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from beanstalk_dispatch.conf import SETTINGS, SettingsGroup, Values, environment, get_config
from beanstalk_dispatch.conf import config as configuration
from beanstalk_dispatch.exceptions import ConfigurationError
from tests.conftest import Environment


def test_everything_has_a_default(env: Environment) -> None:
    env(DISPATCH_CRASH_LEDGER=None)
    config = get_config()
    assert not config.worker
    assert config.table == {}
    assert config.task_timeout == timedelta(minutes=2)
    assert config.on_failure == "redeliver"
    assert set(config.sources.values()) == {"default"}
    assert get_config() is config


def test_threads_that_read_it_at_the_same_moment_get_the_same_one(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env()
    both_read = threading.Barrier(2, timeout=10)
    resolve = environment.read_values

    def resolve_together(group: SettingsGroup) -> Values:
        both_read.wait()
        return resolve(group)

    monkeypatch.setattr(configuration, "read_values", resolve_together)
    with ThreadPoolExecutor(2) as threads:
        one, other = (threads.submit(get_config) for _ in range(2))
    assert one.result() is other.result() is get_config()


def test_one_problem_is_one_line_with_variable_and_item(env: Environment) -> None:
    env(WORKER="Ture")
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value) == (
        "1 problem in the configuration of beanstalk_dispatch:\n"
        "  - BEANSTALK_WORKER: 'Ture' is not a boolean; write True or False"
    )


def test_all_problems_are_reported_together(env: Environment) -> None:
    env(WORKER="Ture", DISPATCH_TASK_TIMEOUT="soon", DISPATCH_SQS_KEY="AKIA",
        DISPATCH_TABLE_FILE="/nowhere/table")  # fmt: skip
    with (
        override_settings(BEANSTALK_DISPATCH_PERIODIC_TASKS=5),
        pytest.raises(ConfigurationError) as caught,
    ):
        get_config()
    assert str(caught.value).splitlines() == [
        "5 problems in the configuration of beanstalk_dispatch:",
        "  - BEANSTALK_WORKER: 'Ture' is not a boolean; write True or False",
        (
            "  - BEANSTALK_DISPATCH_TABLE_FILE: cannot read '/nowhere/table': "
            "No such file or directory"
        ),
        "  - BEANSTALK_DISPATCH_TASK_TIMEOUT: 'soon' is not a duration; write 90, 90s, 5m or 1h",
        "  - BEANSTALK_DISPATCH_PERIODIC_TASKS: expected a list of strings, not int",
        (
            "  - BEANSTALK_DISPATCH_SQS_KEY is set without BEANSTALK_DISPATCH_SQS_SECRET; set "
            "both, or neither for the instance profile"
        ),
    ]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"SQS_KEY": "k"},
         ("BEANSTALK_DISPATCH_SQS_KEY is set without BEANSTALK_DISPATCH_SQS_SECRET; set both, or "
         "neither for the instance profile")),
        ({"SQS_SECRET": "s"},
         ("BEANSTALK_DISPATCH_SQS_SECRET is set without BEANSTALK_DISPATCH_SQS_KEY; set both, or "
         "neither for the instance profile")),
        ({"SQS_TOKEN": "t"},
         ("BEANSTALK_DISPATCH_SQS_TOKEN is set without BEANSTALK_DISPATCH_SQS_KEY and "
         "BEANSTALK_DISPATCH_SQS_SECRET")),
        ({"SIGNING_KEYS": "a-key-of-the-tests", "MESSAGE_FORMAT": "base64"},
         ("BEANSTALK_DISPATCH_MESSAGE_FORMAT: base64 messages cannot be signed, but "
         "BEANSTALK_DISPATCH_SIGNING_KEYS is set; write json, or unset the keys")),
        ({"MAX_AGE": "4d"},
         ("BEANSTALK_DISPATCH_MAX_AGE is set without BEANSTALK_DISPATCH_SIGNING_KEYS; without a "
          "signature a sender may write any time")),
        ({"QUEUES": "a=q", "DEAD_LETTER_QUEUE": "b"},
         "BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE: 'b' is not in BEANSTALK_DISPATCH_QUEUES; known: a"),
        ({"CELERY_QUEUES": "q", "MAX_AGE": "4d", "SIGNING_KEYS": "a-key-of-the-tests"},
         ("BEANSTALK_DISPATCH_CELERY_QUEUES and BEANSTALK_DISPATCH_MAX_AGE are set; messages of "
          "Celery do not say when they were sent, so all of them would be refused")),
        ({"QUEUES": "a=q", "CELERY_QUEUES": "a b"},
         "BEANSTALK_DISPATCH_CELERY_QUEUES: 'b' is not in BEANSTALK_DISPATCH_QUEUES; known: a"),
        ({"DEAD_LETTER_QUEUE": "my queue"},
         ("BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE: 'my queue' is not a queue name, its URL "
         "(https://sqs.REGION.amazonaws.com/ACCOUNT/NAME) or its ARN")),
        ({"QUEUES": "mail=shop-mail dead=https://sqs.eu-west-1.amazonaws.com/123456789012/shop-mail",
          "DEAD_LETTER_QUEUE": "dead"},
         ("BEANSTALK_DISPATCH_DEAD_LETTER_QUEUE: 'dead' is the queue 'shop-mail', and so is the "
         "alias 'mail': a message that fails would go back to its own queue; give 'dead' another "
         "queue")),
    ],
)  # fmt: skip
def test_contradictions_are_errors(
    env: Environment, variables: dict[str, str], problem: str
) -> None:
    env(**{f"DISPATCH_{name}": value for name, value in variables.items()})
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value).splitlines()[1:] == [f"  - {problem}"]


def test_queues_of_one_name_in_two_accounts_are_two_queues(env: Environment) -> None:
    url = "https://sqs.eu-west-1.amazonaws.com/{}/shop"
    mail, dead = url.format("123456789012"), url.format("210987654321")
    env(DISPATCH_QUEUES=f"mail={mail} dead={dead}", DISPATCH_DEAD_LETTER_QUEUE="dead")
    assert get_config().work_queues == ["mail"]


@pytest.mark.parametrize("alone", [True, False])
def test_the_dead_letter_queue_is_known_by_its_alias_and_by_its_own_name(
    env: Environment, alone: bool
) -> None:
    assert not get_config().is_dead_letter_queue("shop-dead")
    queues = None if alone else "mail=shop-mail dead=shop-dead"
    env(DISPATCH_QUEUES=queues, DISPATCH_DEAD_LETTER_QUEUE="shop-dead" if alone else "dead")
    assert get_config().is_dead_letter_queue("shop-dead")
    assert get_config().is_dead_letter_queue("dead") is not alone
    assert not get_config().is_dead_letter_queue("mail")


def test_the_repr_shows_everything_but_secrets(env: Environment) -> None:
    env(DISPATCH_TABLE="a=m.f",
        DISPATCH_SQS_KEY="AKIA1", DISPATCH_SQS_SECRET="hush1", DISPATCH_SQS_TOKEN="hush2",
        DISPATCH_SIGNING_KEYS="hush3-of-16-or-more")  # fmt: skip
    shown = repr(get_config())
    for field, setting in SETTINGS.items():
        assert (f"{field}=" in shown) is not setting.secret
    assert "'a': 'm.f'" in shown
    assert "hush" not in shown
    assert "AKIA1" not in shown


def test_the_config_cannot_be_changed() -> None:
    config: Any = get_config()
    with pytest.raises(AttributeError):
        config.worker = True
    with pytest.raises(TypeError):
        config.table["a"] = "b"


def test_other_settings_leave_the_config_alone() -> None:
    config = get_config()
    with override_settings(USE_TZ=False):
        assert get_config() is config


def test_a_project_that_has_not_installed_the_app_is_told(
    env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(INSTALLED_APPS=[]):
        for _ in range(2):
            get_config()
    (line,) = [line for line in caplog.messages if "INSTALLED_APPS" in line]
    assert line == (
        "not in INSTALLED_APPS app=beanstalk_dispatch: no check, no command and no start line says "
        "what is wrong; add it"
    )
