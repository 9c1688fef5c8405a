from __future__ import annotations

import pytest
from django.test import override_settings

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SETTINGS, SettingsGroup, registry
from tests.conftest import Environment

from .rooms import ROOM


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


@pytest.mark.parametrize("prefix", ["SHOP_", "\ufeff"])
def test_a_name_after_a_prefix_is_found(
    env: Environment, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv(f"{prefix}BEANSTALK_DISPATCH_TABLE", "x")
    monkeypatch.setenv(f"{prefix}BEANSTALK_STAGE", "another's")
    assert conf.unknown_variables() == {
        f"{prefix}BEANSTALK_DISPATCH_TABLE": "BEANSTALK_DISPATCH_TABLE"
    }
    with override_settings(BEANSTALK_DISPATCH_TABLE={"a": "shop.a"}):
        assert conf.unknown_variables() == {}


def test_a_removed_variable_is_unknown_though_others_are_close(env: Environment) -> None:
    env(DISPATCH_BACKLOG_THREADS="10", DISPATCH_BACKLOG_THREADS_FILE="x")
    assert conf.unknown_variables() == {
        "BEANSTALK_DISPATCH_BACKLOG_THREADS": None,
        "BEANSTALK_DISPATCH_BACKLOG_THREADS_FILE": None,
    }


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
    shared = SettingsGroup(prefix=ROOM.prefix, settings=ROOM.settings, is_prefix_shared=True)
    monkeypatch.setattr(registry, "_groups", [shared])
    env(DISPATCH_ROOM_KYE="x", DISPATCH_ROOM_SIZES="x", DISPATCH_ROOM_KEYRING="another's")
    assert conf.unknown_variables() == {
        "BEANSTALK_DISPATCH_ROOM_KYE": "BEANSTALK_DISPATCH_ROOM_KEY",
        "BEANSTALK_DISPATCH_ROOM_SIZES": "BEANSTALK_DISPATCH_ROOM_SIZE",
    }
