from __future__ import annotations

import re
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import SETTINGS, Config, Setting, variables
from beanstalk_dispatch.conf.casts import Network
from beanstalk_dispatch.conf.queue_address import QueueAddress

_OTHER_TYPES = {"Network": Network, "QueueAddress": QueueAddress}


def test_each_field_of_the_config_has_a_setting() -> None:
    assert SETTINGS.keys() == get_type_hints(Config, localns=_OTHER_TYPES).keys() - {"sources"}
    assert SETTINGS["sqs_key"] is variables.SQS_KEY
    assert SETTINGS["worker"] is variables.WORKER


def test_a_field_of_the_config_has_the_type_of_its_setting() -> None:
    hints = get_type_hints(Config, localns=_OTHER_TYPES)
    for name, setting in SETTINGS.items():
        hint = hints[name]
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


def test_each_variable_is_read() -> None:
    """As ``config.field``, or as ``values[NAME]`` where there is no Config yet."""
    package = Path(str(conf.__file__)).parents[1]
    sources = [each for each in package.rglob("*.py") if each.parent.name != "conf"]
    text = "".join(each.read_text() for each in sources)
    own = (package / "conf" / "config.py").read_text()
    for field, setting in SETTINGS.items():
        (name,) = [key for key, each in vars(variables).items() if each is setting]
        in_properties = re.search(rf"self\.{field}\b", own)
        assert in_properties or re.search(rf"\.{field}\b|\[{name}\]", text), field
