from __future__ import annotations

import dataclasses
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from beanstalk_dispatch.conf import SETTINGS, Config, Setting, variables
from beanstalk_dispatch.conf.casts import Network
from beanstalk_dispatch.conf.queue_address import QueueAddress


def test_each_field_of_the_config_has_a_setting() -> None:
    fields = {field.name for field in dataclasses.fields(Config)} - {"sources"}
    assert SETTINGS.keys() == fields
    assert SETTINGS["sqs_key"] is variables.SQS_KEY
    assert SETTINGS["worker"] is variables.WORKER


@pytest.mark.parametrize("name", SETTINGS)
def test_a_field_of_the_config_has_the_type_of_its_setting(name: str) -> None:
    types_of_others = {"Network": Network, "QueueAddress": QueueAddress}
    setting, hint = SETTINGS[name], get_type_hints(Config, localns=types_of_others)[name]
    either = get_args(hint) if NoneType in get_args(hint) else (hint,)
    types = tuple(get_origin(each) or each for each in either)
    assert isinstance(setting.default, types)
    assert isinstance(setting.cast(setting.example), types)
    assert isinstance(None, types) == (setting.default is None)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.variable)
def test_a_setting_is_described(setting: Setting[Any]) -> None:
    assert setting.variable.startswith(variables.PREFIX)
    assert setting.meaning.endswith(".")
    assert setting.cast(setting.example)
    if isinstance(setting.default, bool | str):
        assert setting.default_text == str(setting.default)
