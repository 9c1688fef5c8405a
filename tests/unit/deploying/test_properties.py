from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import CORE, get_config, variables
from beanstalk_dispatch.contrib.sentry.variables import SENTRY
from beanstalk_dispatch.deploying.properties import (
    MAX_BYTES,
    Property,
    move_to_files,
    problems_on_the_way,
    properties_in_effect,
    string_of,
    total_size,
)
from tests.conftest import Environment

ALL = [*CORE.settings, *SENTRY.settings]
KEY = "0123456789abcdef"


def values(properties: list[Property]) -> dict[str, str]:
    return {each.name: each.value for each in properties}


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.variable)
def test_each_value_is_read_back(setting: conf.Setting[Any]) -> None:
    value = setting.cast(setting.example)
    string = string_of(setting, value)
    assert setting.cast(string) == value
    assert (string in repr(string)) is not setting.secret


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(hours=12)))
def test_a_duration_is_read_back(value: timedelta) -> None:
    read = variables.TASK_TIMEOUT.cast(string_of(variables.TASK_TIMEOUT, value))
    assert abs(read - value) <= timedelta(microseconds=1)


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=16), min_size=1))
def test_signing_keys_are_read_back(keys: list[str]) -> None:
    string = string_of(variables.SIGNING_KEYS, variables.SIGNING_KEYS.cast(keys))
    assert list(variables.SIGNING_KEYS.cast(string)) == keys


@pytest.mark.parametrize(
    ("setting", "value", "string"),
    [
        (variables.TASK_TIMEOUT, timedelta(minutes=4), "4m"),
        (variables.TASK_TIMEOUT, timedelta(hours=2), "2h"),
        (variables.TASK_TIMEOUT, timedelta(seconds=90), "90s"),
        (variables.TASK_TIMEOUT, timedelta(seconds=0.5), "0.5s"),
        (variables.WORKER, True, "True"),
        (variables.TABLE, {"a": "b.c", "d": "e.f"}, "a=b.c d=e.f"),
        (variables.TABLE, {"a b": "c.d"}, '{"a b": "c.d"}'),
        (variables.QUEUES, variables.QUEUES.cast("q=shop-mail"), "q=shop-mail"),
        (
            variables.QUEUES,
            variables.QUEUES.cast("q=arn:aws:sqs:eu-west-1:123456789012:mail"),
            "q=https://sqs.eu-west-1.amazonaws.com/123456789012/mail",
        ),
        (variables.PERIODIC_TASKS, ("a", "b"), "a b"),
        (variables.PERIODIC_TASKS, (), "off"),
        (variables.PERIODIC_TASKS, ("a,b",), '["a,b"]'),
        (
            variables.TRUSTED_PEERS,
            variables.TRUSTED_PEERS.cast("10.0.0.1 ::1"),
            "10.0.0.1/32 ::1/128",
        ),
    ],
)
def test_a_value_is_written_with_the_characters_that_aws_documents_if_possible(
    setting: conf.Setting[Any], value: Any, string: str
) -> None:
    assert string_of(setting, value) == string


def test_a_value_that_no_string_stands_for_is_written_nevertheless() -> None:
    assert string_of(variables.WORKER, "neither") == "neither"


def test_a_tier_gets_what_is_set_here(env: Environment) -> None:
    env(WORKER=True, DISPATCH_TASK_TIMEOUT="90", DISPATCH_CRASH_LEDGER=None)
    with override_settings(BEANSTALK_DISPATCH_TABLE={"a": "b.c"}):
        web, worker = (values(properties_in_effect(worker=each)) for each in (False, True))
    assert web == {"BEANSTALK_DISPATCH_TABLE": "a=b.c", "BEANSTALK_DISPATCH_TASK_TIMEOUT": "90s"}
    assert worker == {"BEANSTALK_WORKER": "True", **web}


def test_a_value_from_a_file_stays_in_its_file(env: Environment, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a key, of two words\n")
    env(DISPATCH_SIGNING_KEYS_FILE=tmp_path / "keys", DISPATCH_CRASH_LEDGER=None)
    (found,) = properties_in_effect(worker=False)
    assert (found.name, found.value) == (
        "BEANSTALK_DISPATCH_SIGNING_KEYS_FILE", str(tmp_path / "keys"),
    )  # fmt: skip
    assert not found.is_secret


def test_a_secret_is_in_no_repr(env: Environment) -> None:
    env(DISPATCH_SIGNING_KEYS=KEY, DISPATCH_CRASH_LEDGER=None)
    (found,) = properties_in_effect(worker=False)
    assert found.is_secret
    assert found.value == KEY
    assert KEY not in repr(found)
    assert KEY not in repr(found.value)


# --- size ------------------------------------------------------------------------------------


def large(number: int, queues: int) -> Mapping[str, str]:
    url = "https://sqs.eu-central-1.amazonaws.com/123456789012/production-shop"
    return {
        "DISPATCH_TABLE": " ".join(
            f"send_notification_{i}=shop.notifications.tasks.customers.send_notification_{i}"
            for i in range(number)
        ),
        "DISPATCH_QUEUES": " ".join(f"queue{i}={url}-{i}" for i in range(queues)),
        "DISPATCH_SIGNING_KEYS": KEY * 4,
    }


def test_bytes_are_counted_as_elastic_beanstalk_does() -> None:
    assert total_size([Property(name="A", value="ü"), Property(name="BC", value="")]) == 4 + 3


def test_what_fits_stays(env: Environment) -> None:
    env(**large(5, 1))
    properties = properties_in_effect(worker=True)
    assert move_to_files(properties, "config") == (properties, {})


def test_the_largest_values_move_to_files_that_give_the_same_configuration(
    env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(**large(60, 5), WORKER=True)
    before = get_config()
    properties = properties_in_effect(worker=True)
    assert total_size(properties) > MAX_BYTES
    kept, files = move_to_files(properties, "config")
    assert total_size(kept) <= MAX_BYTES
    assert list(files) == ["config/BEANSTALK_DISPATCH_TABLE"]
    assert "BEANSTALK_DISPATCH_SIGNING_KEYS" in values(kept)

    (tmp_path / "config").mkdir()
    for path, content in files.items():
        (tmp_path / path).write_text(content)
    monkeypatch.chdir(tmp_path)
    env(DISPATCH_TABLE=None, **values(kept))
    assert get_config().sources["table"] == "file"
    assert get_config().table == before.table
    assert repr(get_config()) == repr(before)


def test_neither_a_secret_nor_a_short_value_moves_to_a_file() -> None:
    properties = [
        Property(name="S", value="s" * 90, is_secret=True),
        Property(name="X_FILE", value="f" * 90),
        Property(name="A", value="a"),
    ]
    assert move_to_files(properties, "d", limit=10) == (properties, {})


# --- what would change a value ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a=b.c d=e.f", []),
        ("https://sqs.eu-west-1.amazonaws.com/1/a", []),
        ("a\\b", ["backslash"]),
        ("'a'", ["quote"]),
        ('"a"', ["quote"]),
        ("a'b", []),
        ("a\nb", ["newline"]),
        ("a,b", ["comma"]),
        ('{"a": "b"}', ["'{' '}'"]),
        ("100%", ["'%'"]),
        ("ü", [r"'\xfc'"]),
    ],
)
def test_what_would_change_a_value_is_said(value: str, words: list[str]) -> None:
    found = list(problems_on_the_way(Property(name="NAME", value=value)))
    assert len(found) == len(words)
    for problem, word in zip(found, words, strict=True):
        assert problem.startswith("NAME ")
        assert word in problem


def systemd_reads(line: str) -> tuple[str, str]:
    """A line of an EnvironmentFile, as systemd reads it: without the backslashes and quotes.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#EnvironmentFile=
    """
    name, _, rest = line.partition("=")
    value, quote, is_escaped = "", "", False
    for character in rest:
        if is_escaped:
            value, is_escaped = value + character, False
        elif character == "\\" and quote != "'":
            is_escaped = True
        elif character == quote or (character in "'\"" and not value and not quote):
            quote = "" if quote else character
        else:
            value += character
    return name, value


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_a_value_without_a_warning_reaches_gunicorn_through_systemd(value: str) -> None:
    each = Property(name="NAME", value=value.strip())
    warnings = "".join(problems_on_the_way(each))
    is_intact = systemd_reads(f"NAME={each.value}") == ("NAME", each.value)
    assert is_intact or "backslash" in warnings or "starts with a quote" in warnings


@pytest.mark.parametrize(
    ("value", "read"), [("a\\b", "ab"), ("'a b'", "a b"), ('"a"', "a"), ("it's", "it's")]
)
def test_systemd_changes_what_there_are_warnings_for(value: str, read: str) -> None:
    assert systemd_reads(f"NAME={value}") == ("NAME", read)


def test_no_character_of_a_secret_is_shown() -> None:
    (problem,) = problems_on_the_way(Property(name="NAME", value="%", is_secret=True))
    assert problem == "NAME contains characters that AWS does not document for values"
