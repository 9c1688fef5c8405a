"""Tasks whose annotations name a model that is imported for the type checker only."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core import checks

from beanstalk_dispatch.client import schedule_function
from beanstalk_dispatch.conf import get_config
from beanstalk_dispatch.exceptions import InvalidCall
from beanstalk_dispatch.running.definitions import dispatch_table
from beanstalk_dispatch.running.definitions.entries import arguments_of
from beanstalk_dispatch.running.definitions.typed_arguments import Annotations
from tests.conftest import Environment

FUTURE = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
MODULE = """\
from typing import TYPE_CHECKING

from beanstalk_dispatch.safe_task import SafeTask

if TYPE_CHECKING:
    from shop.models import Order

def ship(number: int, order: Order | None = None):
    pass

class Ship(SafeTask):
    def run(self, number: int, order: Order | None = None):
        pass

class Chip(SafeTask):
    def run(self, number: int, *, order: "Order" | None = None):
        pass
"""
SHIP, SHIP_CLASS = "typed_for_checkers.ship", "typed_for_checkers.Ship"
CHIP = "typed_for_checkers.Chip"


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: Environment) -> Any:
    (tmp_path / "typed_for_checkers.py").write_text(FUTURE + MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    env(DISPATCH_TASKS=f"{SHIP} {SHIP_CLASS} {CHIP}", DISPATCH_EXECUTE_SYNCHRONOUSLY=True)
    yield importlib.import_module("typed_for_checkers")
    del sys.modules["typed_for_checkers"]


def test_the_checks_warn_of_them() -> None:
    found = checks.run_checks(tags=["beanstalk_dispatch"])
    assert {each.id for each in found} == {"beanstalk_dispatch.W027"}
    assert "name 'Order' is not defined" in found[0].msg
    reason = "unsupported operand type(s) for |: 'str' and 'NoneType'"
    assert found[2].msg == f"{CHIP!r}: its annotations cannot be read: {reason}."


def test_wrong_annotations_of_a_class_are_its_problem(module: Any) -> None:
    """From Python 3.14 on they are found when somebody asks for them, with any exception."""
    module.Ship.__signature__ = 7
    [error] = [each for each in checks.run_checks() if each.id == "beanstalk_dispatch.E007"]
    assert "SafeTask: its parameters cannot be read: unexpected object 7 in __sig" in error.msg


def test_annotations_that_raise_do_not_hide_the_parameters(module: Any) -> None:
    module.ship.__signature__ = 7
    found = Annotations(module.ship)
    assert found.of(0) == ("number", None)
    assert set(found.unreadable) == {"number", "order"}
    test_a_wrong_call_is_seen(SHIP)


@pytest.mark.parametrize("name", [SHIP, SHIP_CLASS, CHIP])
def test_a_wrong_call_is_seen(name: str) -> None:
    with pytest.raises(
        InvalidCall, match=r"it is typed_for_checkers\..hip\(number, (\*, )?order=\.\.\.\)"
    ):
        schedule_function("jobs", name, 1, 2, 3)


@pytest.mark.parametrize("name", [SHIP, SHIP_CLASS, CHIP])
def test_a_limit_by_an_argument_knows_it(name: str) -> None:
    entry = dispatch_table.entry(name, get_config())
    known = arguments_of(entry, [7], {})
    assert (known["number"], known["order"]) == (7, None)
