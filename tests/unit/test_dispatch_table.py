from __future__ import annotations

import pytest

from beanstalk_dispatch import dispatch_table
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import UnknownFunction
from tests import jobs
from tests.conftest import Environment

COUNT = 2_000


def test_each_name_of_a_large_table_is_imported_once(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env(DISPATCH_TABLE=" ".join(f"name{n}=tests.jobs.record" for n in range(COUNT)))
    imported: list[str] = []
    real = dispatch_table.import_dotted_path

    def import_dotted_path(path: str) -> object:
        imported.append(path)
        return real(path)

    monkeypatch.setattr(dispatch_table, "import_dotted_path", import_dotted_path)
    config = get_config()
    first = [dispatch_table.entry(f"name{n}", config) for n in range(COUNT)]
    again = [dispatch_table.entry(f"name{n}", config) for n in range(COUNT)]
    assert len(imported) == COUNT
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_another_configuration_has_a_table_of_its_own(env: Environment) -> None:
    env(DISPATCH_TABLE="name=tests.jobs.record")
    assert dispatch_table.resolve("name", get_config()) is jobs.record
    env(DISPATCH_TABLE="name=tests.jobs.fail")
    assert dispatch_table.resolve("name", get_config()) is jobs.fail


def test_a_name_that_cannot_be_resolved_is_tried_again(env: Environment) -> None:
    env(DISPATCH_TABLE="name=tests.nowhere.f")
    for _ in range(2):
        with pytest.raises(UnknownFunction, match="Unable to locate function"):
            dispatch_table.resolve("name", get_config())
