"""The settings modules of a project: of this process, of its web server, and what they read."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Final

from django.conf import ENVIRONMENT_VARIABLE, settings

_DEFAULT: Final = re.compile(rf"""{ENVIRONMENT_VARIABLE}['"]\]?\s*[,=]\s*['"]([\w.]+)['"]""")
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]*")
_READERS: Final = re.compile(r"env(\.\w+)?|(os\.)?environ\.get|(os\.)?getenv|config")
"""The functions that read a variable: of django-environ, environs, python-decouple and Python."""
_NAMELESS: Final = {
    "env.db": "DATABASE_URL",
    "env.dj_db_url": "DATABASE_URL",
    "env.cache": "CACHE_URL",
    "env.email": "EMAIL_URL",
    "env.email_url": "EMAIL_URL",
    "dj_database_url.config": "DATABASE_URL",
}
"""The variable of a function that is called without a name."""
_MAPPINGS: Final = frozenset({"os.environ", "environ", "env"})


def settings_module() -> str | None:
    """Return the settings module of this process; None if its settings have no module."""
    name: str | None = getattr(settings, "SETTINGS_MODULE", None)
    return name


def server_settings_module(application: str | None) -> str | None:
    """Return the settings module of a server that loads the module ``application``.

    That is the default of this module, unless the environment of this process names another one
    than manage.py does by default: it will then be a property of the servers, too.
    """
    used, default = settings_module(), _default_of(file_of(application))
    manage = _default_of(_file_of_main())
    return default if used and default and used == manage else used


def _default_of(file: Path | None) -> str | None:
    """Return the settings module that a file names; None if it names none."""
    match = _DEFAULT.search(_read(file))
    return match[1] if match else None


def _file_of_main() -> Path | None:
    file = getattr(sys.modules["__main__"], "__file__", None)
    return Path(file) if file else None


def file_of(module: str | None) -> Path | None:
    """Return the file of a module, which is not imported; its package is."""
    try:
        spec = find_spec(module) if module else None
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _read(file: Path | None) -> str:
    return file.read_text(errors="replace") if file and file.exists() else ""


# --- the variables that the settings read ----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class VariablesRead:
    """The names of the environment variables that settings read. Their values are not looked at."""

    required: frozenset[str]
    """Those without a default."""
    optional: frozenset[str]


def variables_read(module: str | None) -> VariablesRead:
    """Return the variables that a settings module and the modules of its ``import *`` read."""
    found: dict[bool, set[str]] = {False: set(), True: set()}
    defaults: set[str] = set()
    for tree in _trees(module, set()):
        for node in ast.walk(tree):
            defaults.update(_defaults_of_schema(node))
            for name, has_default in _variables_of(node):
                found[has_default].add(name)
    required = found[False] - defaults - {ENVIRONMENT_VARIABLE}
    optional = (found[True] | defaults) - required - {ENVIRONMENT_VARIABLE}
    return VariablesRead(required=frozenset(required), optional=frozenset(optional))


def _trees(module: str | None, seen: set[str]) -> Iterator[ast.Module]:
    file = file_of(module)
    if module is None or module in seen or file is None or file.suffix != ".py":
        return
    seen.add(module)
    try:
        tree = ast.parse(_read(file))
    except SyntaxError:
        return
    yield tree
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            name = "." * node.level + (node.module or "")
            yield from _trees(resolve_name(name, package), seen)


def _defaults_of_schema(node: ast.AST) -> Iterator[str]:
    """Yield the variables that get a default where django-environ's Env is made."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Env"):
        for each in node.keywords:
            if each.arg and isinstance(each.value, ast.Tuple):
                yield each.arg


def _variables_of(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield a variable that this expression reads, and True if there is a default."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        if ast.unparse(node.value) in _MAPPINGS and (name := _name_in(node.slice)):
            yield name, False
    elif isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        name = _name_in(node.args[0]) if node.args else _NAMELESS.get(function)
        if name and (function in _NAMELESS or _READERS.fullmatch(function)):
            is_lenient = function.endswith(("getenv", "environ.get"))
            words = {each.arg for each in node.keywords}
            yield name, is_lenient or "default" in words or len(node.args) > 1


def _name_in(node: ast.expr) -> str | None:
    """Return the name of a variable that is written as a string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value if _NAME.fullmatch(node.value) else None
    return None
