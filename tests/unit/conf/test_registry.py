from __future__ import annotations

import pytest
from django.test import override_settings

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SettingsGroup, get_config
from beanstalk_dispatch.exceptions import ConfigurationError
from tests.conftest import Environment

from .rooms import ROOM_KEY, ROOM_SIZE


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
        "BEANSTALK_DISPATCH_ROOM_SIZE: 'many' is not an integer from 1 to 99999",
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
