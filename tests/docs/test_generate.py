"""The tables of variables and .env.example are what ``make tables`` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from beanstalk_dispatch import conf
from docs import generate

CONTENTS = generate.contents()


@pytest.mark.parametrize("path", CONTENTS, ids=lambda path: path.name)
def test_a_file_is_what_make_tables_writes(path: Path) -> None:
    assert path.read_text() == CONTENTS[path]


def test_every_registered_group_has_a_table() -> None:
    documented = {group for _, group in generate.TABLES.values()}
    assert documented == set(conf.registered_groups())


def test_what_a_laptop_sets_are_variables() -> None:
    assert generate.ON_A_LAPTOP.keys() <= {each.variable for each in conf.CORE.settings}


def test_a_table_is_replaced_and_the_rest_of_the_page_stays() -> None:
    page = "# Page\n\n| Variable | old |\n|---|---|\n| `X` | y |\n\nThe end.\n"
    table = generate.table("Variable", conf.CORE)
    assert generate.with_table(page, "Variable", table) == f"# Page\n\n{table}\nThe end.\n"


def test_a_page_without_its_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 tables start with the heading 'Variable'; expected"):
        generate.with_table("# Page\n", "Variable", "")
