from __future__ import annotations

import sys
from pathlib import Path

import pytest
from django.test import override_settings

from beanstalk_dispatch.deploying.settings_module import (
    server_settings_module,
    settings_module,
    variables_read,
)

DEFAULT = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{}")\n'
BASE = """\
import os
from environ import Env
env = Env(DEBUG=(bool, False), plain=bool)
DEBUG = env("DEBUG")
DATABASES = {"default": env.db()}
NAME = env.str("SHOP_NAME", default="shop")
os.environ["WRITTEN"] = "x"
CACHE = env["CACHE_PREFIX"]
OTHER = env(NAME)
DEFAULT = DATABASES["NAME"]
"""
PRODUCTION = """\
from os import environ, getenv
from .base import *
from .base import *
from nowhere import *
SECRET_KEY = env("DJANGO_SECRET_KEY")
HOST = environ["HOST"]
REGION = os.environ.get("REGION")
LEVEL = getenv("LEVEL", "INFO")
SHOP = env("SHOP_NAME")
MODULE = environ["DJANGO_SETTINGS_MODULE"]
print("not a variable".upper())
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose manage.py and wsgi.py have different defaults."""
    package = tmp_path / "cookies"
    for folder in (package, package / "settings"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    (package / "settings" / "base.py").write_text(BASE)
    (package / "settings" / "production.py").write_text(PRODUCTION)
    (package / "wsgi.py").write_text(DEFAULT.format("cookies.settings.production"))
    (tmp_path / "manage.py").write_text(DEFAULT.format("cookies.settings.local"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        sys.modules["__main__"], "__file__", str(tmp_path / "manage.py"), raising=False
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "cookies"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_the_settings_of_the_server_are_those_of_its_module(project: Path) -> None:
    with override_settings(SETTINGS_MODULE="cookies.settings.local"):
        assert settings_module() == "cookies.settings.local"
        assert server_settings_module("cookies.wsgi") == "cookies.settings.production"
        assert server_settings_module("cookies.nothing") == "cookies.settings.local"
        assert server_settings_module("nowhere.wsgi") == "cookies.settings.local"
        (project / "cookies" / "wsgi.py").write_text("import django\n")
        assert server_settings_module("cookies.wsgi") == "cookies.settings.local"


def test_a_module_that_the_environment_names_is_that_of_the_server_too(project: Path) -> None:
    with override_settings(SETTINGS_MODULE="cookies.settings.staging"):
        assert server_settings_module("cookies.wsgi") == "cookies.settings.staging"


def test_settings_without_a_module_have_no_name(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    with override_settings(SETTINGS_MODULE=None):
        assert server_settings_module("cookies.wsgi") is None


def test_the_variables_that_the_settings_read_are_found(project: Path) -> None:
    found = variables_read("cookies.settings.production")
    assert found.required == {
        "CACHE_PREFIX", "DATABASE_URL", "DJANGO_SECRET_KEY", "HOST", "SHOP_NAME",
    }  # fmt: skip
    assert found.optional == {"DEBUG", "LEVEL", "REGION"}


@pytest.mark.parametrize("content", [None, "def broken(:\n"])
def test_settings_that_cannot_be_read_have_no_variables(project: Path, content: str | None) -> None:
    if content:
        (project / "cookies" / "settings" / "other.py").write_text(content)
    found = variables_read("cookies.settings.other")
    assert found.required | found.optional == set()
    assert variables_read(None) == variables_read("sys")
