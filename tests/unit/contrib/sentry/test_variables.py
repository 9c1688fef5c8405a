"""The SENTRY_* variables: a group of settings of their own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Setting, get_config
from beanstalk_dispatch.contrib.sentry import variables
from beanstalk_dispatch.contrib.sentry.variables import SENTRY, get_values
from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.problems import checks, start_log
from tests.conftest import Environment

SETTINGS = {setting.variable: setting for setting in SENTRY.settings}

NOT_A_DSN = (
    "SENTRY_DSN: is not a DSN; copy it from Client Keys (DSN) in your Sentry project's settings "
    "(the value is secret and not shown)"
)


def test_the_group_is_registered() -> None:
    assert SENTRY in conf.registered_groups()


@pytest.mark.parametrize("setting", SENTRY.settings, ids=lambda setting: setting.variable)
def test_a_setting_is_described(setting: Setting[Any]) -> None:
    assert setting.variable.startswith(SENTRY.prefix)
    assert setting.meaning.endswith(".")
    assert setting.cast(setting.example)


def test_everything_has_a_default() -> None:
    values = get_values()
    found = {name: values[setting] for name, setting in SETTINGS.items()}
    assert found == dict.fromkeys(SETTINGS) | {
        "SENTRY_REPORT_RETRIES": False, "SENTRY_REPORT_RECEIVES": (),
        "SENTRY_TRANSPORT_QUEUE_SIZE": 1000}  # fmt: skip
    assert set(values.sources.values()) == {"default"}
    variables.raise_problems()


@pytest.mark.parametrize(
    ("variable", "raw", "expected"),
    [
        ("SENTRY_DSN", " http://x@127.0.0.1/1 ", "http://x@127.0.0.1/1"),
        ("SENTRY_ENVIRONMENT", "production", "production"),
        ("SENTRY_RELEASE", "1.0", "1.0"),
        ("SENTRY_TRACES_SAMPLE_RATE", "0.25", 0.25),
        ("SENTRY_PROFILES_SAMPLE_RATE", "1", 1.0),
        ("SENTRY_SEND_DEFAULT_PII", "yes", True),
        ("SENTRY_REPORT_RETRIES", "True", True),
        ("SENTRY_CHECKIN_MARGIN", "5", 5),
        ("SENTRY_MAX_RUNTIME", "60", 60),
        ("SENTRY_CRON_YAML", "cron.yaml", Path("cron.yaml")),
        ("SENTRY_SHUTDOWN_TIMEOUT", "3s", 3.0),
        ("SENTRY_TRANSPORT_QUEUE_SIZE", "500", 500),
    ],
)
def test_a_value_comes_from_the_environment_a_file_or_a_django_setting(
    variable: str, raw: str, expected: object, env: Environment, tmp_path: Path
) -> None:
    setting = SETTINGS[variable]
    env(**{variable: raw})
    assert get_values()[setting] == expected
    assert get_values().sources[variable] == "environment"
    env(**{variable: None})
    (tmp_path / "value").write_text(f"{raw}\n")
    env(**{f"{variable}_FILE": tmp_path / "value"})
    assert get_values()[setting] == expected
    env(**{f"{variable}_FILE": None, variable: "wrong, and not read"})
    with override_settings(**{variable: raw}):
        assert get_values()[setting] == expected
        assert get_values().sources[variable] == "settings"


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("SENTRY_DSN", "sentry.io/1", NOT_A_DSN),
        ("SENTRY_DSN", "https://hush@host:port/1", NOT_A_DSN),
        ("SENTRY_DSN", "https://hush:hush@host/", NOT_A_DSN),
        ("SENTRY_DSN", "https://[hush@host/1", NOT_A_DSN),
        ("SENTRY_TRACES_SAMPLE_RATE", "50%", ("SENTRY_TRACES_SAMPLE_RATE: '50%' is not a rate; "
         "write a number from 0 to 1")),
        ("SENTRY_PROFILES_SAMPLE_RATE", "2", ("SENTRY_PROFILES_SAMPLE_RATE: '2' is not a rate; "
         "write a number from 0 to 1")),
        ("SENTRY_SEND_DEFAULT_PII", "Ture", ("SENTRY_SEND_DEFAULT_PII: 'Ture' is not a boolean; "
         "write True or False")),
        ("SENTRY_CHECKIN_MARGIN", "5m",
         "SENTRY_CHECKIN_MARGIN: '5m' is not an integer from 1 to 99999"),
        ("SENTRY_CRON_YAML_FILE", "/nowhere/cron.yaml", ("SENTRY_CRON_YAML_FILE: cannot read "
         "'/nowhere/cron.yaml': No such file or directory")),
        ("SENTRY_DSN_FILE", "hush", ("SENTRY_DSN_FILE: cannot read the file: "
         "No such file or directory")),
    ],
)  # fmt: skip
def test_a_wrong_value_counts_as_not_set_and_is_an_error(
    variable: str, value: str, problem: str, env: Environment
) -> None:
    env(**{variable: value})
    values = get_values()
    assert values[SETTINGS[variable.removesuffix("_FILE")]] is None
    with pytest.raises(ConfigurationError) as caught:
        variables.raise_problems()
    assert str(caught.value) == problem
    assert "hush" not in repr(values)


def test_all_problems_are_reported_together_and_break_nothing_else(env: Environment) -> None:
    env(WORKER="True", SENTRY_DSN="no", SENTRY_TRACES_SAMPLE_RATE="half", SENTRY_RELEASE="1.0")
    with pytest.raises(ConfigurationError) as caught:
        variables.raise_problems()
    assert str(caught.value) == (
        f"{NOT_A_DSN}; SENTRY_TRACES_SAMPLE_RATE: 'half' is not a rate; write a number from 0 to 1"
    )
    assert get_values()[SETTINGS["SENTRY_RELEASE"]] == "1.0"
    assert get_config().worker


def test_a_wrong_variable_of_the_package_does_not_break_sentry(env: Environment) -> None:
    env(WORKER="Ture", SENTRY_RELEASE="1.0")
    variables.raise_problems()
    assert get_values()[SETTINGS["SENTRY_RELEASE"]] == "1.0"
    with pytest.raises(ConfigurationError):
        get_config()


def test_a_wrong_value_is_a_warning_of_the_checks(env: Environment) -> None:
    env(SENTRY_TRACES_SAMPLE_RATE="half", SENTRY_DSN="no")
    found = [(message.id, message.msg) for message in checks.check()]
    assert found == [
        ("beanstalk_dispatch.W015", f"{NOT_A_DSN}."),
        ("beanstalk_dispatch.W015", ("SENTRY_TRACES_SAMPLE_RATE: 'half' is not a rate; write a "
         "number from 0 to 1.")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("SENTRY_DNS", "SENTRY_DSN"),
        ("SENTRY_RELASE", "SENTRY_RELEASE"),
        ("SENTRY_TRACE_SAMPLE_RATE", "SENTRY_TRACES_SAMPLE_RATE"),
        ("SENTRY_CRON_YML", "SENTRY_CRON_YAML"),
    ],
)
def test_a_slip_in_a_name_is_reported(
    name: str, closest: str, env: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    env(**{name: "1"})
    (message,) = checks.check()
    assert message.id == "beanstalk_dispatch.W008"
    assert message.msg == f"{name} is set, but beanstalk_dispatch has no variable of that name."
    assert message.hint == f"Did you mean {closest}?"
    with caplog.at_level(logging.WARNING):
        start_log.log_unknown_variables()
    assert caplog.messages == [f"unknown variables names='{name}' did_you_mean='{closest}'"]


# What the SDK and sentry-cli read, and names of the SDK's options that a project may use.
OTHERS = [
    "SENTRY_TRACE", "SENTRY_BAGGAGE", "SENTRY_USE_ENVIRONMENT", "SENTRY_DEBUG", "SENTRY_SPOTLIGHT",
    "SENTRY_KEEP_ALIVE", "SENTRY_DIST", "SENTRY_AUTH_TOKEN", "SENTRY_ORG", "SENTRY_PROJECT",
    "SENTRY_URL", "SENTRY_LOG_LEVEL", "SENTRY_TRACES_SAMPLER",
    "SENTRY_PROFILE_SESSION_SAMPLE_RATE", "SENTRY_JS_DSN", "SENTRY_ENV",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_names_that_others_read_are_not_reported(name: str, env: Environment) -> None:
    env(**{name: "1"})
    assert conf.unknown_variables() == {}
