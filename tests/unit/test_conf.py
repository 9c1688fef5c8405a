from __future__ import annotations

import ipaddress
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SETTINGS, get_config
from beanstalk_dispatch.exceptions import ConfigurationError
from tests.conftest import Environment


def test_everything_has_a_default() -> None:
    config = get_config()
    assert not config.worker
    assert config.table == {}
    assert config.task_timeout == timedelta(minutes=2)
    assert config.on_failure == "redeliver"
    assert set(config.sources.values()) == {"default"}
    assert get_config() is config


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("worker", "True", True),
        ("worker", " yes ", True),
        ("worker", "OFF", False),
        ("table", "a=m.f b=m.g", {"a": "m.f", "b": "m.g"}),
        ("table", "a=m.f, b=m.g,", {"a": "m.f", "b": "m.g"}),
        ("table", '{"a": "m.f"}', {"a": "m.f"}),
        ("task_timeout", "90", timedelta(seconds=90)),
        ("task_timeout", "0.5s", timedelta(seconds=0.5)),
        ("task_timeout", "5m", timedelta(minutes=5)),
        ("task_timeout", "1h", timedelta(hours=1)),
        ("signing_keys", "one two,three", ("one", "two", "three")),
        ("signing_keys", '["with space"]', ("with space",)),
        ("sqs_region", "eu-west-1", "eu-west-1"),
        ("sqs_endpoint_url", "http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("message_format", "base64", "base64"),
        ("safe_task", "a.b.C", "a.b.C"),
        ("trusted_peers", "10.0.0.0/8 ::1", (ipaddress.ip_network("10.0.0.0/8"),
                                             ipaddress.ip_network("::1"))),
    ],
)  # fmt: skip
def test_texts_are_cast(env: Environment, field: str, text: str, expected: object) -> None:
    env(**{SETTINGS[field].variable: text})
    assert getattr(get_config(), field) == expected
    assert get_config().sources[field] == "environment"


@pytest.mark.parametrize(
    ("field", "text", "shown"),
    [
        ("worker", "Ture", "Ture"),
        ("table", "mail", "'mail' is not a pair"),
        ("table", "mail=", "'mail=' is not a pair"),
        ("table", "a=m.f a=m.g", "'a' is given twice"),
        ("table", "a=nodots", "'a=nodots'"),
        ("table", "a=m.f;import-os", "m.f;import-os"),
        ("table", '{"a": "m.f", "a": "m.g"}', "given twice"),
        ("table", '{"a": 1}', "'a': 1"),
        ("table", '{"a"', "character"),
        ("table", "{" + '"a":{' * 100_000, "nested"),
        ("queues", "q=bad*name", "bad*name"),
        ("queues", "q=arn:aws:sqs:x", "arn:aws:sqs:x"),
        ("task_timeout", "30 minutes", "30 minutes"),
        ("task_timeout", "30M", "30M"),
        ("task_timeout", "0", "out of range"),
        ("task_timeout", "13h", "out of range"),
        ("task_timeout", "9" * 400 + "h", "too long"),
        ("task_timeout", "nan", "nan"),
        ("periodic_tasks", "[1]", "1 is not a text"),
        ("periodic_tasks", '["a"', "character"),
        ("sqs_region", "Europe", "Europe"),
        ("sqs_endpoint_url", "localhost:5000", "localhost:5000"),
        ("message_format", "JSON", "json or base64"),
        ("on_failure", "ignore", "redeliver or acknowledge"),
        ("safe_task", "SafeTask", "SafeTask"),
        ("trusted_peers", "10.0.0.1/8", "10.0.0.1/8"),
        ("trusted_peers", "everyone", "everyone"),
    ],
)  # fmt: skip
def test_a_wrong_text_is_one_error_with_name_and_item(
    env: Environment, field: str, text: str, shown: str
) -> None:
    env(**{SETTINGS[field].variable: text})
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    problem = str(caught.value)
    assert problem.startswith("1 problem ")
    assert problem.count("\n") == 1
    assert SETTINGS[field].variable in problem
    assert shown in problem


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("worker", 2),
        ("table", ["a"]),
        ("table", {"a": 1}),
        ("signing_keys", {"a": "b"}),
        ("signing_keys", 5),
        ("sqs_key", b"key"),
        ("task_timeout", timedelta(0)),
        ("drain_file", "here"),
        ("drain_file", b"/drain"),
    ],
)
def test_a_setting_of_the_wrong_type_is_an_error(field: str, value: object) -> None:
    with (
        override_settings(**{SETTINGS[field].variable: value}),
        pytest.raises(ConfigurationError, match=SETTINGS[field].variable),
    ):
        get_config()


def test_all_problems_are_told_together(env: Environment) -> None:
    env(WORKER="Ture", DISPATCH_TASK_TIMEOUT="soon", DISPATCH_SQS_KEY="AKIA")
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value).startswith("3 problems")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"DISPATCH_SQS_KEY": "k"}, "BEANSTALK_DISPATCH_SQS_SECRET"),
        ({"DISPATCH_SQS_SECRET": "s"}, "BEANSTALK_DISPATCH_SQS_KEY"),
        ({"DISPATCH_SQS_TOKEN": "t"}, "BEANSTALK_DISPATCH_SQS_TOKEN"),
        ({"DISPATCH_SIGNING_KEYS": "k", "DISPATCH_MESSAGE_FORMAT": "base64"}, "cannot be signed"),
        ({"DISPATCH_QUEUES": "a=q", "DISPATCH_DEAD_LETTER_QUEUE": "b"}, "'b' is not in .*known: a"),
    ],
)
def test_contradictions_are_errors(env: Environment, variables: dict[str, str], named: str) -> None:
    env(**variables)
    with pytest.raises(ConfigurationError, match=named):
        get_config()


def test_a_path_may_be_a_path() -> None:
    with override_settings(BEANSTALK_DISPATCH_DRAIN_FILE=Path("/var/app/drain")):
        assert get_config().drain_file == "/var/app/drain"


def test_a_setting_wins_over_the_environment(env: Environment) -> None:
    env(DISPATCH_TASK_TIMEOUT="5m")
    with override_settings(BEANSTALK_DISPATCH_TASK_TIMEOUT=timedelta(seconds=3)):
        assert get_config().task_timeout == timedelta(seconds=3)
        assert get_config().sources["task_timeout"] == "settings"
    assert get_config().task_timeout == timedelta(minutes=5)


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_empty_setting_is_unset(env: Environment, empty: str | None) -> None:
    env(DISPATCH_SQS_REGION="eu-west-1")
    with override_settings(BEANSTALK_DISPATCH_SQS_REGION=empty):
        assert get_config().sqs_region == "eu-west-1"


def test_an_empty_variable_is_unset(env: Environment) -> None:
    env(WORKER="", DISPATCH_TABLE=" ")
    assert not get_config().worker
    assert get_config().table == {}


def test_other_settings_leave_the_config_alone() -> None:
    config = get_config()
    with override_settings(USE_TZ=False):
        assert get_config() is config


def test_a_value_can_come_from_a_file(env: Environment, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    env(DISPATCH_SQS_SECRET_FILE=secret, DISPATCH_SQS_KEY="k")
    assert get_config().sqs_secret == "from-a-file"


def test_a_missing_file_is_an_error_that_names_the_variable(env: Environment) -> None:
    env(DISPATCH_TABLE_FILE="/nowhere/table")
    with pytest.raises(ConfigurationError, match="BEANSTALK_DISPATCH_TABLE_FILE.*/nowhere"):
        get_config()


def test_a_secret_in_the_place_of_its_file_is_not_shown(env: Environment) -> None:
    env(DISPATCH_SQS_SECRET_FILE="hush", DISPATCH_SQS_KEY="k")
    with pytest.raises(
        ConfigurationError, match="BEANSTALK_DISPATCH_SQS_SECRET_FILE: No"
    ) as caught:
        get_config()
    assert "hush" not in str(caught.value)


NO_TEXT = "\udcff"  # a byte that is not UTF-8, in os.environ


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIGNING_KEYS", f"key{NO_TEXT}"),
        ("SIGNING_KEYS", '["key\\ud800"]'),
        ("SAFE_TASK", NO_TEXT),
        ("PERIODIC_TASKS", f"a {NO_TEXT}"),
        ("QUEUES", f"{NO_TEXT}=q"),
        ("TABLE", '{"\\ud800": "a.b"}'),
        ("LEASE_CACHE", NO_TEXT),
    ],
)
def test_what_is_not_unicode_is_refused(env: Environment, variable: str, value: str) -> None:
    """A key of such characters could not sign: it would fail at the first message."""
    env(DISPATCH_SQS_KEY="k", DISPATCH_SQS_SECRET="s")
    env(**{f"DISPATCH_{variable}": value})
    with pytest.raises(ConfigurationError, match=f"1 problem.*\n.*BEANSTALK_DISPATCH_{variable}"):
        get_config()


@pytest.mark.parametrize(
    "url",
    ["http://host:port", "http://host:70000", "http://my_host", "http://-host", "http://[::g]",
     "http://host name", "http://h\x7f", "http://h\u00e4", "http://[::1]x", "http://..", "http:/h"],
)  # fmt: skip
def test_an_endpoint_that_no_client_takes_is_refused(env: Environment, url: str) -> None:
    env(DISPATCH_SQS_ENDPOINT_URL=url)
    with pytest.raises(ConfigurationError, match="DISPATCH_SQS_ENDPOINT_URL.*is not a URL"):
        get_config()


@pytest.mark.parametrize("url", ["http://[::1]:9", "https://a-b.c1.", "http://127.0.0.1:4566/x"])
def test_an_endpoint_that_a_client_takes(env: Environment, url: str) -> None:
    env(DISPATCH_SQS_ENDPOINT_URL=url)
    assert get_config().sqs_endpoint_url == url


def test_a_value_with_a_dollar_is_taken_as_it_is(env: Environment) -> None:
    env(DISPATCH_SQS_SECRET="$HOME", DISPATCH_SQS_KEY="k")
    assert get_config().sqs_secret == "$HOME"


def test_secrets_are_not_in_the_repr(env: Environment) -> None:
    env(DISPATCH_SQS_KEY="AKIA1", DISPATCH_SQS_SECRET="hush1", DISPATCH_SQS_TOKEN="hush2",
        DISPATCH_SIGNING_KEYS="hush3")  # fmt: skip
    shown = repr(get_config())
    assert "task_timeout" in shown
    assert "hush" not in shown
    assert "AKIA1" not in shown


@pytest.mark.parametrize("value", ["tok-1\ntok-2", "tok tok", "töken"])
def test_what_no_header_can_carry_is_no_credential(env: Environment, value: str) -> None:
    env(DISPATCH_SQS_KEY="key", DISPATCH_SQS_SECRET="secret", DISPATCH_SQS_TOKEN=value)
    with pytest.raises(ConfigurationError, match=r"SQS_TOKEN: not valid .*secret") as caught:
        get_config()
    assert "tok" not in str(caught.value).replace("SQS_TOKEN", "")


def test_a_wrong_secret_is_not_in_the_error(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS='["hush')
    with pytest.raises(ConfigurationError, match="secret") as caught:
        get_config()
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@host", "http:/user:hunter2@host", "http://user:hunter2@[host"]
)
def test_a_password_in_the_endpoint_is_refused_and_not_shown(env: Environment, url: str) -> None:
    env(DISPATCH_SQS_ENDPOINT_URL=url)
    with pytest.raises(ConfigurationError, match="password") as caught:
        get_config()
    assert "hunter2" not in str(caught.value)


def test_the_config_cannot_be_changed() -> None:
    config: Any = get_config()
    with pytest.raises(AttributeError):
        config.worker = True
    with pytest.raises(TypeError):
        config.table["a"] = "b"


def test_default_region_follows_the_aws_variables(env: Environment) -> None:
    assert conf.default_region() is None
    env(AWS_DEFAULT_REGION="eu-west-1")
    assert conf.default_region() == "eu-west-1"
    env(AWS_REGION="eu-west-2")
    assert conf.default_region() == "eu-west-2"


def test_misspelt_variables_are_found(env: Environment) -> None:
    env(DISPATCH_TABEL="x", DISPATCH_TABLE_FILE="", DISPATCH_TABLE="a=m.f")
    with override_settings(BEANSTALK_DISPATCH_QUEUE="x"):
        assert conf.unknown_variables() == [
            "BEANSTALK_DISPATCH_QUEUE",
            "BEANSTALK_DISPATCH_TABEL",
        ]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "worker=False reason='BEANSTALK_WORKER is not set' functions=none queues=none"),
        ({"WORKER": "True", "DISPATCH_TABLE": "b=m.f a=m.g", "DISPATCH_QUEUES": "mail=q"},
         "worker=True reason='BEANSTALK_WORKER from environment' functions=a, b queues=mail"),
        ({"WORKER": "Ture"}, "worker=unknown reason=configuration error=1 problem"),
    ],
)  # fmt: skip
def test_the_start_line_says_what_the_process_is(
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    expected: str,
) -> None:
    env(**variables)
    with caplog.at_level(logging.INFO):
        conf.log_start()
    assert expected in caplog.text
