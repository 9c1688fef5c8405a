"""The promise of docs/api.rst, held to the code and to what the pages teach."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
API = (ROOT / "docs" / "api.rst").read_text()
FOR_DEVELOPERS = {"architecture.md"}
PAGES = [
    ROOT / "README.md",
    ROOT / ".env.example",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in FOR_DEVELOPERS),
]

_MODULE = re.compile(r"^\.\. automodule:: (\S+)(?:\n   :members:(.*))?$", re.MULTILINE)
_IMPORT = re.compile(r"\bfrom (beanstalk_dispatch[\w.]*) import (\([^)]*\)|[\w, ]+)")
_DOTTED_PATH = re.compile(r"\bbeanstalk_dispatch(?:\.\w+)+\b")


def tree_of(module: str) -> ast.Module:
    return ast.parse(Path(str(import_module(module).__file__)).read_text())


def defined_in(module: str) -> Iterator[tuple[str, str | None]]:
    """Yield each public name that a module defines, with its docstring."""
    body = tree_of(module).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, ast.get_docstring(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            (target,) = node.targets if isinstance(node, ast.Assign) else [node.target]
            is_string = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            yield ast.unparse(target), ast.unparse(after) if is_string and after else None


def promised_of(module: str, names: str) -> list[str]:
    """Return the names that are listed, or else all that the module documents, as Sphinx does."""
    found = [name for name, docstring in defined_in(module) if docstring and name[0] != "_"]
    return names.replace(",", " ").split() or found


MODULES = [module for module, _ in _MODULE.findall(API)]
PROMISED = [
    f"{module}.{name}"
    for module, names in _MODULE.findall(API)
    for name in promised_of(module, names)
]


def taught_on(page: Path) -> set[str]:
    """Return the dotted paths of the package's names that a page imports or mentions."""
    text = page.read_text()
    imported = {
        f"{module}.{name}"
        for module, names in _IMPORT.findall(text)
        for name in names.strip("()").replace(",", " ").split()
    }
    return imported | {path for path in _DOTTED_PATH.findall(text) if is_name(path)}


def is_name(path: str) -> bool:
    """Tell a class or function from a module, a logger, the id of a check, and a name of 0.1."""
    parent, _, name = path.rpartition(".")
    try:
        module = import_module(parent)
    except ImportError:
        return False
    is_exported = name in getattr(module, "__all__", ())  # Lambda's handler is made when it is used
    return is_exported or not inspect.ismodule(vars(module).get(name, module))


def test_what_a_page_teaches_is_promised() -> None:
    taught = {page.name: taught_on(page) - set(PROMISED) for page in PAGES}
    assert {page: names for page, names in taught.items() if names} == {}


def test_pages_teach_what_the_test_above_looks_for(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "from beanstalk_dispatch.client import (\n    Call,\n    warm,\n)\n"
        "from beanstalk_dispatch.nowhere import left_out\n"
        "`beanstalk_dispatch.contrib.aws_lambda.handler`, the module `beanstalk_dispatch.client`,"
        " the logger `beanstalk_dispatch.task.lease`, W007: `beanstalk_dispatch.W007`"
    )
    assert taught_on(page) == {
        "beanstalk_dispatch.client.Call",
        "beanstalk_dispatch.client.warm",
        "beanstalk_dispatch.nowhere.left_out",
        "beanstalk_dispatch.contrib.aws_lambda.handler",
    }


def test_what_is_promised_exists_and_has_a_docstring() -> None:
    for path in PROMISED:
        module, _, name = path.rpartition(".")
        value = vars(import_module(module)).get(name)
        is_object = inspect.isclass(value) or inspect.isroutine(value)
        assert value.__doc__ if is_object else dict(defined_in(module))[name], path


@pytest.mark.parametrize(
    "module",
    ["client", "observers", "resuming", "draining", "contrib.aws_lambda", "contrib.results"],
)
def test_a_door_exports_what_is_promised(module: str) -> None:
    door = f"beanstalk_dispatch.{module}"
    exported = {f"{door}.{name}" for name in import_module(door).__all__}
    assert exported == {each for each in PROMISED if each.rpartition(".")[0] == door}


def test_the_promise_says_each_name_once() -> None:
    assert len(PROMISED) == len(set(PROMISED)) > 60
    assert API.count("automodule") == len(MODULES) == len(set(MODULES))
    assert all(import_module(module).__doc__ for module in MODULES)
