from __future__ import annotations

import sys
from pathlib import Path

import pytest
from django.test import override_settings

from beanstalk_dispatch.deploying.application import (
    ASGI,
    WSGI,
    Application,
    find_application,
    project_name,
)

HERE = Path(__file__).parents[3]


def test_the_application_is_that_of_the_settings(tmp_path: Path) -> None:
    with override_settings(WSGI_APPLICATION="tests.wsgi.application", ASGI_APPLICATION="x.asgi.y"):
        found = find_application(tmp_path)
    assert found == Application(module="tests.wsgi")
    with override_settings(WSGI_APPLICATION=None, ASGI_APPLICATION="tests.asgi.app"):
        found = find_application(tmp_path)
    assert (found.interface, found.gunicorn) == (ASGI, "tests.asgi:app")


@pytest.mark.parametrize(
    ("urls", "module", "interface"),
    [("tests.urls", "tests.wsgi", WSGI), ("nowhere.urls", "nowhere.wsgi", WSGI),
     (None, "project.wsgi", WSGI), ("onlyasgi.urls", "onlyasgi.asgi", ASGI)],
)  # fmt: skip
def test_without_settings_it_is_looked_for_beside_the_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, urls: str, module: str, interface: object
) -> None:
    (tmp_path / "onlyasgi").mkdir()
    (tmp_path / "onlyasgi" / "asgi.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with override_settings(WSGI_APPLICATION=None, ASGI_APPLICATION=None, ROOT_URLCONF=urls):
        found = find_application(tmp_path)
    assert (found.module, found.interface) == (module, interface)


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("web: gunicorn config.asgi:application -k uvicorn_worker.UvicornWorker", "config.asgi"),
        ("web: gunicorn shop.web.wsgi:app", "shop.web.wsgi:app"),
        ("web: gunicorn --chdir wsgi.d x", "tests.wsgi"),
    ],
)
def test_the_procfile_names_the_application_before_the_settings(
    tmp_path: Path, line: str, target: str
) -> None:
    (tmp_path / "Procfile").write_text(f"{line}\n")
    with override_settings(WSGI_APPLICATION="tests.wsgi.application"):
        assert find_application(tmp_path).gunicorn == target


def test_a_package_below_the_root_needs_a_change_of_folder() -> None:
    with override_settings(WSGI_APPLICATION="tests.wsgi.application"):
        assert find_application(HERE).directory == ""
        assert find_application(HERE.parent).gunicorn == f"--chdir {HERE.name} tests.wsgi"


def test_an_installed_package_needs_none() -> None:
    with override_settings(WSGI_APPLICATION="django.core.wsgi.application"):
        assert find_application(Path("/")).directory == ""


def test_the_worker_class_is_that_of_the_package_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Application().worker_class == "uvicorn.workers.UvicornWorker"
    (tmp_path / "uvicorn_worker.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Application().worker_class == "uvicorn_worker.UvicornWorker"
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("urls", "folder", "name"),
    [("my_shop.urls", "x", "my-shop"), ("config.urls", "My Shop_2", "my-shop-2"),
     (None, "shop", "shop"), ("core.urls", "__", "project")],
)  # fmt: skip
def test_a_package_that_many_projects_have_gives_no_name(
    tmp_path: Path, urls: str | None, folder: str, name: str
) -> None:
    with override_settings(ROOT_URLCONF=urls):
        assert project_name(tmp_path / folder) == name
