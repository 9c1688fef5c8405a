"""A secret that is given but cannot be used is an error, wherever it is given, and never "off"."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from django.test import Client, override_settings

from beanstalk_dispatch import conf
from beanstalk_dispatch.conf import Setting
from beanstalk_dispatch.contrib.sentry.variables import DSN, SENTRY
from beanstalk_dispatch.messages.message import Message
from tests import jobs
from tests.conftest import Environment

GOOD: Final = "a-good-secret-of-the-tests"
SECRETS: Final = {
    setting.variable: (group, setting)
    for group in (conf.CORE, SENTRY)
    for setting in group.settings
    if setting.secret
}
SIGNING_KEYS: Final = conf.SETTINGS["signing_keys"]
CONTENTS: Final[dict[str, str | None]] = {
    "absent": None,
    "empty": "",
    "blanks": "   ",
    "newline": " \n",
    "BOM": "\ufeff",
    "BOM and key": f"\ufeff{GOOD}",
    "NUL": "\0",
    "NULs": "\0" * 32,
    "NUL and key": f"{GOOD}\0",
    "invisible": "\u200b" * 32,
}
CASES: Final = [
    *((door, content) for door in ("variable", "file", "setting") for content in CONTENTS),
    ("file", "directory"),
    ("file", "missing file"),
    ("file", "not UTF-8"),
    ("setting", "path of a file"),
]
UNSET: Final = {
    *((door, "absent") for door in ("variable", "file", "setting")),
    *(("variable", content) for content in ("empty", "blanks", "newline")),
}
"""An empty variable counts as not set, because Elastic Beanstalk removes a property so."""
IMPOSSIBLE: Final = {("variable", content) for content in CONTENTS if "NUL" in content}
"""An operating system's variable has no NUL in it."""
EMPTY_SETTING: Final = {("setting", content) for content in ("empty", "blanks", "newline")}
LETS_NOBODY_IN: Final = {
    DSN,  # Sentry's SDK and its documentation write an empty one for "off"
    *(setting for name, (_, setting) in SECRETS.items() if "_SQS_" in name),  # as 0.1 took it
}
"""An empty Django setting of these counts as not set."""

POSSIBLE: Final = [case for case in CASES if case not in IMPOSSIBLE]


def give(
    env: Environment, tmp_path: Path, setting: Setting[Any], door: str, content: str
) -> dict[str, object]:
    """Give the setting this content in the environment; returns the Django settings to give."""
    file, value = tmp_path / "secret", CONTENTS.get(content)
    file.write_bytes(b"\xff" * 32 if content == "not UTF-8" else (value or "").encode())
    if content == "path of a file":
        file.write_text(GOOD)
        return {f"{setting.variable}_FILE": str(file)}
    if door == "setting":
        return {setting.variable: value}
    if door == "variable":
        env(**{setting.variable: value})
    elif content != "absent":
        paths = {"directory": tmp_path, "missing file": tmp_path / "nothing"}
        env(**{f"{setting.variable}_FILE": paths.get(content, file)})
    return {}


@pytest.mark.parametrize("variable", SECRETS)
def test_a_secret_is_unset_or_wrong_but_never_off(
    env: Environment, tmp_path: Path, variable: str
) -> None:
    group, setting = SECRETS[variable]
    for case in POSSIBLE:
        is_unset = case in UNSET or (case in EMPTY_SETTING and setting in LETS_NOBODY_IN)
        env(**{variable: None, f"{variable}_FILE": None})
        with override_settings(**give(env, tmp_path, setting, *case)):
            values = conf.values_of(group)
        assert (values[setting], values.sources[variable]) == (setting.default, "default"), case
        problems = [problem.startswith(variable) for problem in values.problems]
        assert problems == [True] * (not is_unset), case
        assert GOOD not in "".join(values.problems), case


@pytest.mark.parametrize(
    ("door", "content", "has_good_variable"),
    [
        *((*case, False) for case in POSSIBLE),
        *((*case, True) for case in POSSIBLE if case[0] != "variable"),
    ],
)
def test_an_unsigned_message_runs_only_where_no_key_is_given(
    env: Environment, tmp_path: Path, door: str, content: str, has_good_variable: bool
) -> None:
    env(WORKER=True, DISPATCH_TABLE="record=tests.jobs.record")
    if has_good_variable:
        env(**{SIGNING_KEYS.variable: GOOD})
    body = Message(function="record", args=[1]).encode(queue="q")
    with override_settings(**give(env, tmp_path, SIGNING_KEYS, door, content)):
        response = Client().post(
            "/beanstalk_dispatch/dispatcher", body, content_type="application/json"
        )
    runs = (door, content) in UNSET and not has_good_variable
    assert bool(jobs.calls) is runs
    assert response.status_code == (200 if runs else 403 if (door, content) in UNSET else 500)
