from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from beanstalk_dispatch import casts, conf
from beanstalk_dispatch.conf import (
    SETTINGS,
    Config,
    Setting,
    SettingsGroup,
    Values,
    get_config,
)
from beanstalk_dispatch.exceptions import ConfigurationError
from tests.conftest import Environment

KEYS = "BEANSTALK_DISPATCH_SIGNING_KEYS"

# --- the registry ----------------------------------------------------------------------------

ROOM_SIZE: Setting[int] = Setting(
    variable="BEANSTALK_DISPATCH_ROOM_SIZE",
    form="minutes",
    cast=casts.minutes,
    default=7,
    default_text="7",
    meaning="A number.",
    example="5",
)
ROOM_KEY: Setting[str | None] = Setting(
    variable="BEANSTALK_DISPATCH_ROOM_KEY",
    form="string without whitespace",
    cast=casts.credential,
    default=None,
    default_text="none",
    meaning="A secret.",
    example="a-key",
    secret=True,
)
ROOM = SettingsGroup(prefix="BEANSTALK_DISPATCH_ROOM_", settings=(ROOM_SIZE, ROOM_KEY))


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[SettingsGroup]:
    """A contrib room's group, registered for one test."""
    monkeypatch.setattr(conf, "_groups", [conf.CORE])
    conf.register(ROOM)
    yield ROOM
    conf.clear_caches()


def test_each_field_of_the_config_has_a_setting() -> None:
    fields = {field.name for field in dataclasses.fields(Config)} - {"sources"}
    assert SETTINGS.keys() == fields
    assert SETTINGS["sqs_key"] is conf.SQS_KEY
    assert SETTINGS["worker"] is conf.WORKER


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.variable)
def test_a_setting_is_described(setting: Setting[Any]) -> None:
    assert setting.variable.startswith(conf.PREFIX)
    assert setting.meaning.endswith(".")
    assert setting.cast(setting.example)
    if isinstance(setting.default, bool | str):
        assert setting.default_text == str(setting.default)


def test_a_contrib_room_has_its_values_by_setting(room: SettingsGroup, env: Environment) -> None:
    env(DISPATCH_ROOM_SIZE="5")
    values = conf.values_of(room)
    assert values[ROOM_SIZE] == 5
    assert values[ROOM_KEY] is None
    assert values.sources == {ROOM_SIZE.variable: "environment", ROOM_KEY.variable: "default"}
    assert values.problems == ()
    assert conf.registered_groups() == (conf.CORE, room)


def test_values_are_read_once_until_a_setting_of_the_group_changes(
    room: SettingsGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = conf.values_of(room)
    monkeypatch.setenv(ROOM_SIZE.variable, "5")
    assert conf.values_of(room) is values
    with override_settings(BEANSTALK_DISPATCH_ROOM_SIZE=9):
        assert conf.values_of(room)[ROOM_SIZE] == 9
    assert conf.values_of(room)[ROOM_SIZE] == 5


def test_a_wrong_value_of_a_room_breaks_nothing_else(room: SettingsGroup, env: Environment) -> None:
    env(DISPATCH_ROOM_SIZE="many", DISPATCH_ROOM_KEY="hush hush", WORKER="True")
    values = conf.values_of(room)
    assert values[ROOM_SIZE] == 7
    assert values[ROOM_KEY] is None
    assert values.problems == (
        "BEANSTALK_DISPATCH_ROOM_SIZE: 'many' is not a number of minutes; write 1 to 99999",
        (
            "BEANSTALK_DISPATCH_ROOM_KEY: contains whitespace or non-ASCII characters "
            "(the value is secret and not shown)"
        ),
    )
    assert get_config().worker


def test_a_wrong_core_value_breaks_no_room(room: SettingsGroup, env: Environment) -> None:
    env(DISPATCH_ROOM_SIZE="5", WORKER="Ture")
    assert conf.values_of(room)[ROOM_SIZE] == 5
    with pytest.raises(ConfigurationError, match="BEANSTALK_WORKER"):
        get_config()


def test_the_values_of_a_room_show_no_secret(room: SettingsGroup, env: Environment) -> None:
    env(DISPATCH_ROOM_KEY="hush")
    assert conf.values_of(room)[ROOM_KEY] == "hush"
    assert "hush" not in repr(conf.values_of(room))


def test_a_variable_has_one_setting(room: SettingsGroup) -> None:
    with pytest.raises(ValueError, match="registered twice: BEANSTALK_DISPATCH_ROOM_KEY"):
        conf.register(SettingsGroup(prefix="BEANSTALK_", settings=(ROOM_KEY,)))


# --- the configuration -----------------------------------------------------------------------


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
    resolve = conf._resolve_group

    def resolve_together(group: SettingsGroup) -> Values:
        both_read.wait()
        return resolve(group)

    monkeypatch.setattr(conf, "_resolve_group", resolve_together)
    with ThreadPoolExecutor(2) as threads:
        one, other = (threads.submit(get_config) for _ in range(2))
    assert one.result() is other.result() is get_config()


def test_a_value_of_the_environment_is_cast(env: Environment) -> None:
    env(WORKER=" yes ", DISPATCH_TABLE="a=m.f", DISPATCH_TASK_TIMEOUT="5m")
    config = get_config()
    assert (config.worker, config.table) == (True, {"a": "m.f"})
    assert config.task_timeout == timedelta(minutes=5)
    assert config.sources["worker"] == config.sources["table"] == "environment"


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
        ("crash_ledger", "Off"),
    ],
)
def test_a_setting_of_the_wrong_type_is_an_error(field: str, value: object) -> None:
    with (
        override_settings(**{SETTINGS[field].variable: value}),
        pytest.raises(ConfigurationError, match=f"{SETTINGS[field].variable}: "),
    ):
        get_config()


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
    ],
)  # fmt: skip
def test_contradictions_are_errors(
    env: Environment, variables: dict[str, str], problem: str
) -> None:
    env(**{f"DISPATCH_{name}": value for name, value in variables.items()})
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert str(caught.value).splitlines()[1:] == [f"  - {problem}"]


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
def test_an_empty_file_of_a_secret_is_an_error(
    env: Environment, tmp_path: Path, field: str
) -> None:
    """It wins over the variable, so a good value there does not help."""
    variable = SETTINGS[field].variable
    (tmp_path / "secret").write_text(" \n")
    env(**{f"{variable}_FILE": tmp_path / "secret", variable: "a-key-of-the-tests"})
    with pytest.raises(ConfigurationError, match=f"{variable}: the file is empty"):
        get_config()


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


NOT_UTF8 = "\udcff"  # a byte that is not UTF-8, in os.environ


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


def test_secrets_are_not_in_the_log(
    env: Environment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "secret").write_text("hush1")
    env(DISPATCH_SQS_KEY="hush0", DISPATCH_SQS_SECRET_FILE=tmp_path / "secret",
        DISPATCH_SQS_TOKEN="$hush2", DISPATCH_SIGNING_KEYS="hush3-of-16-or-more",
        DISPATCH_SIGNING_KEY="hush4", WORKER="Ture")  # fmt: skip
    conf.log_start()
    conf.log_unknown_variables()
    assert "Ture" in caplog.text
    assert "hush" not in caplog.text


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


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("BEANSTALK_WORKR", "BEANSTALK_WORKER"),
        ("BEANSTALK_DISPATCH_WORKER", "BEANSTALK_WORKER"),
        ("BEANSTALK_DISPATCH_TABEL", "BEANSTALK_DISPATCH_TABLE"),
        ("BEANSTALK_DISPATCH_TABEL_FILE", "BEANSTALK_DISPATCH_TABLE_FILE"),
        ("BEANSTALK_DISPATCH_QUEUE", "BEANSTALK_DISPATCH_QUEUES"),
        ("BEANSTALK_QUEUES", "BEANSTALK_DISPATCH_QUEUES"),
        ("BEANSTALK_DISPACH_QUEUES", "BEANSTALK_DISPATCH_QUEUES"),
        ("BEANSTALK_DISPATCH_TIMEOUT", "BEANSTALK_DISPATCH_TASK_TIMEOUT"),
        ("BEANSTALK_DISPATCH_REGION", "BEANSTALK_DISPATCH_SQS_REGION"),
        ("BEANSTALK_DISPATCH_SIGNING_KEY", "BEANSTALK_DISPATCH_SIGNING_KEYS"),
        ("BEANSTALK_DISPATCH_XYZ", None),
        ("BEANSTALK_", None),
    ],
)
def test_an_unknown_variable_is_found_with_the_closest_name(
    env: Environment, name: str, closest: str | None
) -> None:
    env(**{name: "x"})
    assert conf.unknown_variables() == {name: closest}
    env(**{name: None})
    with override_settings(**{name: "x"}):
        assert conf.unknown_variables() == {name: closest}


def test_a_name_without_its_first_word_is_found(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCH_TABLE", "x")
    monkeypatch.setenv("DISPATCH_COUNT", "another product's")
    assert conf.unknown_variables() == {"DISPATCH_TABLE": "BEANSTALK_DISPATCH_TABLE"}


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


def test_known_variables_and_their_files_are_not_unknown(
    room: SettingsGroup, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in (*SETTINGS.values(), *ROOM.settings):
        env(**{setting.variable: "x", f"{setting.variable}_FILE": "x"})
    monkeypatch.setenv("BEANSTALKD_URL", "another product's")
    monkeypatch.setenv("SENTRY_DNS", "no room for it is registered here")
    assert conf.unknown_variables() == {}


def test_of_a_shared_prefix_only_slips_are_reported(
    monkeypatch: pytest.MonkeyPatch, env: Environment
) -> None:
    shared = dataclasses.replace(ROOM, is_prefix_shared=True)
    monkeypatch.setattr(conf, "_groups", [shared])
    env(DISPATCH_ROOM_KYE="x", DISPATCH_ROOM_SIZES="x", DISPATCH_ROOM_KEYRING="another's")
    assert conf.unknown_variables() == {
        "BEANSTALK_DISPATCH_ROOM_KYE": "BEANSTALK_DISPATCH_ROOM_KEY",
        "BEANSTALK_DISPATCH_ROOM_SIZES": "BEANSTALK_DISPATCH_ROOM_SIZE",
    }


@pytest.mark.parametrize(
    ("names", "lines"),
    [
        ([], []),
        (["BEANSTALK_WORKR", "BEANSTALK_DISPATCH_TABEL", "BEANSTALK_DISPATCH_XYZ"],
         [("unknown variables names='BEANSTALK_DISPATCH_TABEL, BEANSTALK_DISPATCH_XYZ, "
          "BEANSTALK_WORKR' did_you_mean='BEANSTALK_DISPATCH_TABLE, BEANSTALK_WORKER'")]),
        (["BEANSTALK_DISPATCH_XYZ"],
         ["unknown variables names='BEANSTALK_DISPATCH_XYZ' did_you_mean='none'"]),
    ],
)  # fmt: skip
def test_unknown_variables_are_one_warning(
    env: Environment, caplog: pytest.LogCaptureFixture, names: list[str], lines: list[str]
) -> None:
    env(**dict.fromkeys(names, "x"))
    conf.log_unknown_variables()
    assert [record.getMessage() for record in caplog.records] == lines
    assert {record.levelname for record in caplog.records} <= {"WARNING"}


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
    record, *more = caplog.records
    assert f"start {expected}" in record.getMessage()
    assert ["start signed=no" in each.getMessage() for each in more] in ([], [True])


@pytest.mark.parametrize(
    ("variables", "levels", "signed"),
    [
        ({"DISPATCH_SIGNING_KEYS": "a-key-of-the-tests"}, ["INFO"], " signed=yes"),
        ({}, ["INFO", "WARNING"], ""),
        ({"DISPATCH_EXECUTE_SYNCHRONOUSLY": "True"}, ["INFO"], ""),
        ({"DISPATCH_SIGNING_KEYS": "short"}, ["ERROR"], "(the value is secret and not shown)"),
    ],
)
@pytest.mark.parametrize("worker", ["True", "False"])
def test_the_start_says_whether_messages_are_signed(
    env: Environment,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    levels: list[str],
    signed: str,
    worker: str,
) -> None:
    env(WORKER=worker, **variables)
    with caplog.at_level(logging.INFO):
        conf.log_start()
    assert [record.levelname for record in caplog.records] == levels
    first, *more = [record.getMessage() for record in caplog.records]
    assert first.endswith(signed or "queues=none")
    for line in more:
        assert line == (
            "start signed=no: anyone who may send to the queue may run every listed function; set "
            f"{KEYS} to one long random string, on the web environment first and then on the "
            'worker environment: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


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


@pytest.mark.parametrize("between", ["", "\n"])
def test_a_value_that_has_swallowed_the_next_property_is_refused(
    env: Environment, between: str
) -> None:
    """As after a backslash at the end of a property, or a quote that is not closed."""
    env(DISPATCH_QUEUES=f"a=b mail=shop-mail{between}BEANSTALK_WORKER=True")
    shown = "BEANSTALK_WORKER=" if between else "mail=shop-mailBEANSTALK_WORKER="
    with pytest.raises(ConfigurationError) as caught:
        get_config()
    assert (
        f"BEANSTALK_DISPATCH_QUEUES: {shown!r} contains the next property, BEANSTALK_WORKER; "
        "remove the backslash at the end of the value, or the quote that is not closed"
    ) in str(caught.value)


def test_a_secret_may_be_in_quotes(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS="'0123456789abcdef'")
    assert get_config().signing_keys == ("'0123456789abcdef'",)
