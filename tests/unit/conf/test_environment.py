from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.test import override_settings

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SETTINGS, get_config
from beanstalk_dispatch.exceptions import ConfigurationError
from tests.conftest import Environment

NOT_UTF8 = "\udcff"  # a byte that is not UTF-8, in os.environ

KEYS = "BEANSTALK_DISPATCH_SIGNING_KEYS"


def test_a_value_of_the_environment_is_cast(env: Environment) -> None:
    env(WORKER=" yes ", DISPATCH_TABLE="a=m.f", DISPATCH_TASK_TIMEOUT="5m")
    config = get_config()
    assert (config.worker, config.table) == (True, {"a": "m.f"})
    assert config.task_timeout == timedelta(minutes=5)
    assert config.sources["worker"] == config.sources["table"] == "environment"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("worker", 2),
        ("table", ["a"]),
        ("table", {"a": 1}),
        ("signing_keys", {"a": "b"}),
        ("signing_keys", 5),
        ("signing_keys", ["one-key-of-16-characters", 5]),
        ("sqs_key", b"key"),
        ("task_timeout", timedelta(0)),
        ("drain_file", "here"),
        ("drain_file", b"/drain"),
        ("crash_ledger", "Off"),
    ],
)
def test_a_setting_of_the_wrong_type_is_an_error(field: str, value: object) -> None:
    with (
        override_settings(**{SETTINGS[field].variable: value}),
        pytest.raises(ConfigurationError, match=f"{SETTINGS[field].variable}: "),
    ):
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


def test_a_value_can_come_from_a_file(env: Environment, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n")
    env(DISPATCH_SQS_SECRET_FILE=secret, DISPATCH_SQS_KEY="k")
    assert get_config().sqs_secret == "from-a-file"


def test_a_file_wins_over_the_variable(env: Environment, tmp_path: Path) -> None:
    (tmp_path / "timeout").write_text("3m")
    env(DISPATCH_TASK_TIMEOUT_FILE=tmp_path / "timeout", DISPATCH_TASK_TIMEOUT="1m")
    assert get_config().task_timeout == timedelta(minutes=3)
    assert get_config().sources["task_timeout"] == "file"


def test_an_empty_file_is_unset(env: Environment, tmp_path: Path) -> None:
    (tmp_path / "timeout").write_text(" \n")
    env(DISPATCH_TASK_TIMEOUT_FILE=tmp_path / "timeout")
    assert get_config().sources["task_timeout"] == "default"


@pytest.mark.parametrize("field", [name for name, each in SETTINGS.items() if each.secret])
@pytest.mark.parametrize("source", ["environment", "settings"])
def test_the_arn_of_a_secret_is_not_taken_for_its_value(
    env: Environment, field: str, source: str
) -> None:
    variable, arn = SETTINGS[field].variable, "arn:aws:ssm:eu-west-1:1:parameter/hush"
    env(**({variable: arn} if source == "environment" else {}))
    with (
        override_settings(**({variable: arn} if source == "settings" else {})),
        pytest.raises(ConfigurationError) as caught,
    ):
        get_config()
    assert f"{variable}: is the ARN of a secret, not its value; set the ARN in" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_key_with_spaces_and_commas_has_a_way_in(env: Environment, tmp_path: Path) -> None:
    key = "a, key with spaces, and commas"
    env(DISPATCH_SIGNING_KEYS=f'["{key}"]')
    assert get_config().signing_keys == (key,)
    (tmp_path / "keys").write_text(f"{key}\nanother-of-the-tests\n")
    env(DISPATCH_SIGNING_KEYS_FILE=tmp_path / "keys")
    assert get_config().signing_keys == (key, "another-of-the-tests")


def test_a_file_is_read_again_when_the_cache_is_cleared(env: Environment, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    env(DISPATCH_SIGNING_KEYS_FILE=secret)
    for key in ("the-first-signing-key", "the-second-signing-key"):
        secret.write_text(key)
        conf.clear_caches()
        assert get_config().signing_keys == (key,)


def test_an_unreadable_file_is_an_error_that_names_the_variable(
    env: Environment, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_bytes(b"hush\xff")
    env(DISPATCH_TABLE_FILE="/nowhere/table", DISPATCH_QUEUES_FILE=tmp_path,
        DISPATCH_SIGNING_KEYS_FILE=tmp_path / "keys")  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value).splitlines()[1:] == [
        (
            "  - BEANSTALK_DISPATCH_TABLE_FILE: cannot read '/nowhere/table': "
            "No such file or directory"
        ),
        f"  - BEANSTALK_DISPATCH_QUEUES_FILE: cannot read '{tmp_path}': Is a directory",
        f"  - {KEYS}_FILE: the content of the file is not UTF-8",
    ]


def test_a_secret_in_the_place_of_its_file_is_not_shown(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS_FILE="hush")
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value).splitlines()[1:] == [
        f"  - {KEYS}_FILE: cannot read the file: No such file or directory"
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIGNING_KEYS", f"key{NOT_UTF8}"),
        ("SIGNING_KEYS", '["key\\ud800"]'),
        ("SAFE_TASK", NOT_UTF8),
        ("PERIODIC_TASKS", f"a {NOT_UTF8}"),
        ("QUEUES", f"{NOT_UTF8}=q"),
        ("TABLE", '{"\\ud800": "a.b"}'),
        ("LEASE_CACHE", NOT_UTF8),
    ],
)
def test_what_is_not_unicode_is_refused(env: Environment, variable: str, value: str) -> None:
    """A key of such characters could not sign: it would fail at the first message."""
    env(DISPATCH_SQS_KEY="k", DISPATCH_SQS_SECRET="s")
    env(**{f"DISPATCH_{variable}": value})
    with pytest.raises(ConfigurationError, match=f"1 problem.*\n.*BEANSTALK_DISPATCH_{variable}"):
        get_config()


@pytest.mark.parametrize("value", ["$HOME", "$$", r"\$HOME", r"a\$b$c\\$", "${HOME}"])
def test_a_dollar_sign_has_no_meaning_in_a_value(
    env: Environment, tmp_path: Path, value: str
) -> None:
    env(DISPATCH_SQS_SECRET=value, DISPATCH_SQS_KEY="k")
    assert get_config().sqs_secret == value
    (tmp_path / "$ecret").write_text(value)
    env(DISPATCH_SQS_SECRET_FILE=tmp_path / "$ecret")
    assert get_config().sqs_secret == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ('["hush', ("starts like JSON but is not JSON (character 1: Unterminated string starting "
         "at); write JSON, or items separated by whitespace")),
        (f'["hush", {"9" * 5000}]', "expected a list"),
        ('["hush", {"hush": 1, "hush": 2}]', "is given twice"),
        ('["hush", 5]', "is not accepted; expected a list of strings"),
    ],
)  # fmt: skip
def test_a_wrong_secret_is_not_in_the_error(env: Environment, value: str, reason: str) -> None:
    env(DISPATCH_SIGNING_KEYS=value)
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value).splitlines()[1:] == [
        f"  - {KEYS}: {reason} (the value is secret and not shown)"
    ]
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_credential_that_no_header_can_carry_is_refused(env: Environment) -> None:
    env(DISPATCH_SQS_KEY="key", DISPATCH_SQS_SECRET="secret", DISPATCH_SQS_TOKEN="tok-1\ntok-2")
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value).splitlines()[1:] == [
        (
            "  - BEANSTALK_DISPATCH_SQS_TOKEN: contains whitespace or non-ASCII characters "
            "(the value is secret and not shown)"
        )
    ]


def test_a_password_in_the_endpoint_is_not_shown(env: Environment) -> None:
    env(DISPATCH_SQS_ENDPOINT_URL="http://user:hunter2@host")
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value).splitlines()[1:] == [
        (
            "  - BEANSTALK_DISPATCH_SQS_ENDPOINT_URL: a user name or password in the URL is not "
            "accepted"
        )
    ]


def test_default_region_follows_the_aws_variables(env: Environment) -> None:
    assert conf.default_region() is None
    env(AWS_DEFAULT_REGION="eu-west-1")
    assert conf.default_region() == "eu-west-1"
    env(AWS_REGION="eu-west-2")
    assert conf.default_region() == "eu-west-2"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('"mail=shop-mail"', "is in quotes, which are a part of the value here; remove them"),
        ("'mail=shop-mail'", "is in quotes, which are a part of the value here; remove them"),
        ("mail=shop-mail \\", "ends with a backslash; write the value in one line"),
    ],
)
def test_what_a_shell_would_have_removed_is_refused(
    env: Environment, value: str, problem: str
) -> None:
    env(DISPATCH_QUEUES=value)
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert f"BEANSTALK_DISPATCH_QUEUES: {value!r} {problem}" in str(caught.value)


@pytest.mark.parametrize("following", ["BEANSTALK_WORKER", "DJANGO_SETTINGS_MODULE"])
@pytest.mark.parametrize("between", ["", "\n"])
def test_a_value_that_has_swallowed_the_next_property_is_refused(
    env: Environment, between: str, following: str
) -> None:
    """As after a backslash at the end of a property, or a quote that is not closed."""
    env(DISPATCH_QUEUES=f"a=b mail=shop-mail{between}{following}=True")
    shown = f"{following}=" if between else f"mail=shop-mail{following}="
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert (
        f"BEANSTALK_DISPATCH_QUEUES: {shown!r} contains the next property, {following}; "
        "remove the backslash at the end of the value, or the quote that is not closed"
    ) in str(caught.value)


def test_a_secret_may_be_in_quotes(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS="'0123456789abcdef'")
    assert get_config().signing_keys == ("'0123456789abcdef'",)
