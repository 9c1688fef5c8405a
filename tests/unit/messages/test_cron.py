from __future__ import annotations

import sys
from pathlib import Path

import pytest

from beanstalk_dispatch.exceptions import ConfigurationError
from beanstalk_dispatch.messages import cron
from beanstalk_dispatch.messages.cron import PeriodicTask

VALID = """\
version: 1
cron:
  - name: clean_up
    url: /beanstalk_dispatch/dispatcher
    schedule: "*/5 * * * *"
"""


def load(tmp_path: Path, content: str) -> list[PeriodicTask]:
    file = tmp_path / "cron.yaml"
    file.write_text(content)
    return cron.load(file)


def test_a_cron_yaml_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, VALID) == [
        PeriodicTask(name="clean_up", url="/beanstalk_dispatch/dispatcher", schedule="*/5 * * * *")
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "while parsing"),
        ("", "version: 1"),
        ("- a", "version: 1"),
        (VALID.replace("1", "2", 1), "version: 1"),
        ("version: 1\ncron: x", "a list under"),
        ("version: 1\ncron: [x]", "entry 1: expected the strings name, url, schedule"),
        (VALID.replace("clean_up", "5"), "entry 1: expected the strings name, url, schedule"),
        (VALID.replace("url: /", "url: "), "is not a path"),
        (VALID.replace("*/5 *", "61 *"), "clean_up: '61"),
        (VALID.replace("/beanstalk_dispatch/dispatcher", '"/a\\r\\nX-Evil: 1"'), "is not a path"),
        (VALID.replace("/beanstalk_dispatch/dispatcher", "/a b"), "is not a path"),
        (VALID.replace("clean_up", '"a\\nERROR forged"'), "entry 1: name is not a string of 1 to"),
        (VALID.replace("clean_up", "2026-99-99"), "month must be in"),
        (VALID.replace("clean_up", "!!python/object/apply:os.getpid []"), "could not determine"),
        ("[" * 1000, "nested too deeply"),
    ],
)
def test_a_wrong_cron_yaml_is_one_error(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load(tmp_path, content)
    assert str(caught.value).isprintable()  # it is one line of the log


def test_a_cron_yaml_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cron.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigurationError, match="codec can't decode"):
        cron.load(tmp_path / "cron.yaml")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        cron.load(tmp_path / "nowhere.yaml")


def test_a_missing_extra_gives_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(
        ConfigurationError, match=r"pip install 'django-beanstalk-dispatch\[local\]"
    ):
        load(tmp_path, VALID)
