from __future__ import annotations

from pathlib import Path

import pytest

from beanstalk_dispatch.deploying.procfile import web_server
from beanstalk_dispatch.problems.requirements_check import check

OWN = "django_beanstalk_dispatch==1.1.0\n"


@pytest.mark.parametrize(
    ("content", "command", "missing"),
    [
        (OWN, "gunicorn shop.wsgi", []),
        ("Django\n", "gunicorn shop.wsgi", ["django-beanstalk-dispatch"]),
        (OWN, "gunicorn -k uvicorn_worker.UvicornWorker x", ["uvicorn-worker"]),
        (OWN + "uvicorn[standard]>=0.30\n", "uvicorn x", []),
        (OWN + "uvicorn-worker\n", "gunicorn -k uvicorn.workers.UvicornWorker x", ["uvicorn"]),
        (OWN, "waitress-serve x", ["waitress"]),
        ("git+https://example.com/django-beanstalk-dispatch.git\n", "sh serve.sh", []),
        ("-e .\n", "uvicorn x", []),
        (None, "uvicorn x", []),
    ],
)
def test_each_package_that_is_needed_is_named(
    tmp_path: Path, content: str | None, command: str, missing: list[str]
) -> None:
    if content:
        (tmp_path / "requirements.txt").write_text(content)
    found = [each.msg.split()[3].strip(",") for each in check(web_server(command), tmp_path)]
    assert found == missing


def test_the_files_that_it_names_are_read_once_each(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements.txt").write_text("-r requirements/production.txt\n")
    (tmp_path / "requirements" / "production.txt").write_text("-r base.txt\ngunicorn\n")
    (tmp_path / "requirements" / "base.txt").write_text(f"-r production.txt\n{OWN}")
    assert list(check(web_server("gunicorn x"), tmp_path)) == []
