"""Projects of each shape that ``beanstalk_eb`` has to fit, made in an empty folder.

Each is a template of Django or Wagtail with the lines of the tutorial, or a project with the facts
of cookiecutter-django: two settings modules, a package named ``config``, and its own Procfile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from django.core.management import call_command

APP: Final = """

INSTALLED_APPS += ["beanstalk_dispatch"]
ALLOWED_HOSTS = ["localhost"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"beanstalk_dispatch": {"handlers": ["console"], "level": "INFO"}},
}
"""
URLS: Final = """
from django.urls import include, path

urlpatterns = [
    path("beanstalk_dispatch/", include("beanstalk_dispatch.urls")),
    *globals().get("urlpatterns", []),
]
"""
TASKS: Final = """
from django.db import connection


def send_welcome(user_id=None):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    print("welcome, user", user_id, "from", connection.vendor, flush=True)


send_welcome.schedule = "0 4 * * *"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shape of project."""

    name: str
    build: Callable[[Path], None]
    """Writes the project into an empty folder named ``shop``."""
    settings: str
    """The settings module of the servers."""
    target: str
    """The end of the Procfile's web line."""
    manage: str = "manage.py"
    package: str = "shop"
    """Where ``tasks.py`` is."""
    vendor: str = "sqlite"
    properties: Mapping[str, str] = field(default_factory=dict)
    """What the settings read, beside DATABASE_URL."""
    walls: frozenset[str] = frozenset()
    """The ids of what the doctor says of these properties."""
    remedies: Mapping[str, str] = field(default_factory=dict)
    """The properties that end these findings."""
    overwrites: bool = False
    """True if the project has a Procfile that does not do what is needed."""


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def append(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).write_text((folder / name).read_text() + content)


def start(folder: Path, package: str = "shop", below: str = "", **options: Any) -> None:
    """Do what ``django-admin startproject`` does."""
    (folder / below).mkdir(exist_ok=True)
    call_command("startproject", package, str(folder / below), verbosity=0, **options)
    write(folder, {"requirements.txt": "django-beanstalk-dispatch\n"})


def of_wsgi(folder: Path, below: str = "") -> None:
    start(folder, below=below)
    append(folder / below, {"shop/settings.py": APP, "shop/urls.py": URLS})
    write(folder / below, {"shop/tasks.py": TASKS})


def of_asgi(folder: Path) -> None:
    of_wsgi(folder)
    (folder / "shop" / "wsgi.py").unlink()
    lines = 'del WSGI_APPLICATION\nASGI_APPLICATION = "shop.asgi.application"\n'
    append(folder, {"shop/settings.py": lines})


def below_src(folder: Path) -> None:
    of_wsgi(folder, "src")


def of_wagtail(folder: Path) -> None:
    """Do what ``wagtail start`` does. Its wsgi.py has the settings of a laptop as default."""
    import wagtail

    template = str(Path(wagtail.__file__).parent / "project_template")
    start(folder, template=template, extensions=["py", "html"])
    own = (
        'import environ\nfrom .base import *\nenv = environ.Env()\nSECRET_KEY = env("SECRET_KEY")\n'
    )
    database = 'DATABASES = {"default": env.db()}\nDEBUG = False\n'
    write(folder, {"shop/settings/production.py": own + APP + database, "shop/tasks.py": TASKS})
    append(folder, {"shop/urls.py": URLS})


# --- the facts of cookiecutter-django --------------------------------------------------------

DEFAULT: Final = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.{}")\n'
COOKIECUTTER: Final = {
    "manage.py": "import os\nimport sys\nfrom pathlib import Path\n\n"
    'if __name__ == "__main__":\n    ' + DEFAULT.format("local") + "    "
    "from django.core.management import execute_from_command_line\n\n"
    '    sys.path.append(str(Path(__file__).parent.resolve() / "shop"))\n'
    "    execute_from_command_line(sys.argv)\n",
    "config/wsgi.py": "import os\nimport sys\nfrom pathlib import Path\n\n"
    "from django.core.wsgi import get_wsgi_application\n\n"
    'sys.path.append(str(Path(__file__).resolve(strict=True).parent.parent / "shop"))\n'
    + DEFAULT.format("production")
    + "application = get_wsgi_application()\n",
    "config/__init__.py": "",
    "config/settings/__init__.py": "",
    "config/settings/base.py": """\
from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve(strict=True).parent.parent.parent
env = environ.Env()
READ_DOT_ENV_FILE = env.bool("DJANGO_READ_DOT_ENV_FILE", default=False)
if READ_DOT_ENV_FILE:
    env.read_env(str(BASE_DIR / ".env"))
DEBUG = env.bool("DJANGO_DEBUG", False)
TIME_ZONE = "UTC"
USE_TZ = True
DATABASES = {"default": env.db("DATABASE_URL")}
DATABASES["default"]["ATOMIC_REQUESTS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles", "django.contrib.admin",
    "beanstalk_dispatch", "shop.users",
]
AUTH_USER_MODEL = "users.User"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
STATIC_URL = "/static/"
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "DIRS": [str(BASE_DIR / "shop" / "templates")],
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_HTTPONLY = True
""",
    "config/settings/local.py": """\
from .base import *

DEBUG = True
SECRET_KEY = env("DJANGO_SECRET_KEY", default="for-a-laptop-only")
INSTALLED_APPS += ["debug_toolbar"]  # which is in requirements/local.txt alone
""",
    "config/settings/production.py": """\
from .base import *

SECRET_KEY = env("DJANGO_SECRET_KEY")
ALLOWED_HOSTS = env.list("DJANGO_ALLOWED_HOSTS", default=["example.com"])
DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE", default=60)
CACHES = {"default": {
    "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": env("REDIS_URL"),
}}
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = env.bool("DJANGO_SECURE_SSL_REDIRECT", default=True)
SECURE_REDIRECT_EXEMPT = env.list("DJANGO_SECURE_REDIRECT_EXEMPT", default=[])
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
SECURE_HSTS_SECONDS = 60
ADMIN_URL = env("DJANGO_ADMIN_URL")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": True,
    "formatters": {"verbose": {"format": "%(levelname)s %(asctime)s %(module)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "verbose"}},
    "root": {"level": "INFO", "handlers": ["console"]},
}
""",
    "config/urls.py": """\
from django.conf import settings
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("beanstalk_dispatch/", include("beanstalk_dispatch.urls")),
    path(settings.ADMIN_URL, admin.site.urls),
]
""",
    "shop/__init__.py": "",
    "shop/tasks.py": TASKS,
    "shop/users/__init__.py": "",
    "shop/users/models.py": "from django.contrib.auth.models import AbstractUser\n\n\n"
    "class User(AbstractUser):\n    pass\n",
    "Procfile": "release: python manage.py migrate\nweb: gunicorn config.wsgi:application\n",
    "requirements.txt": "-r requirements/production.txt\n",
    "requirements/production.txt": "-r base.txt\ngunicorn\n",
    "requirements/base.txt": "django\ndjango-environ\ndjango-beanstalk-dispatch\n",
    "requirements/local.txt": "-r production.txt\ndjango-debug-toolbar\n",
}


def of_cookiecutter(folder: Path) -> None:
    write(folder, COOKIECUTTER)


SHAPES: Final = (
    Shape(name="wsgi", build=of_wsgi, settings="shop.settings", target="150 shop.wsgi"),
    Shape(name="asgi", build=of_asgi, settings="shop.settings", target="150 shop.asgi"),
    Shape(name="src", build=below_src, settings="shop.settings", manage="src/manage.py",
          target="150 --chdir src shop.wsgi"),
    Shape(
        name="cookiecutter", build=of_cookiecutter, settings="config.settings.production",
        target="150 config.wsgi", vendor="postgresql", overwrites=True,
        properties={"DJANGO_SECRET_KEY": "s" * 50, "DJANGO_ADMIN_URL": "hidden/",
                    "REDIS_URL": "redis://127.0.0.1:1/0", "DJANGO_ALLOWED_HOSTS": "shop.com"},
        walls=frozenset({"E014", "E017"}),
        remedies={"DJANGO_ALLOWED_HOSTS": "shop.com,localhost",
                  "DJANGO_SECURE_REDIRECT_EXEMPT": "^beanstalk_dispatch/"},
    ),
    Shape(name="wagtail", build=of_wagtail, settings="shop.settings.production",
          target="150 shop.wsgi", vendor="postgresql", properties={"SECRET_KEY": "s" * 50}),
)  # fmt: skip
