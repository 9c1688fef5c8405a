"""The admin of a project with the outbox, in a process of its own: the tests have no admin."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROJECT = """
import django
from django.conf import settings
from django.urls import path

settings.configure(
    SECRET_KEY="for this test",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
        "django.contrib.messages", "django.contrib.sessions",
        "beanstalk_dispatch", "beanstalk_dispatch.contrib.outbox",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
        "OPTIONS": {"context_processors": [
            "django.template.context_processors.request",
            "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]},
    }],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    LOGGING_CONFIG=None,
)
django.setup()

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from beanstalk_dispatch.contrib.outbox.models import OutboxMessage

urlpatterns = [path("admin/", admin.site.urls)]
call_command("check")
call_command("makemigrations", "--check")
call_command("migrate", verbosity=0)
row = OutboxMessage.objects.create(
    task_id="the-id", function="f", queue="mail", body='{"args": ["a-secret"]}',
    error="AccessDenied",
)
client = Client()
client.force_login(User.objects.create_superuser("ann"))
home = "/admin/beanstalk_outbox/outboxmessage/"
for page in (home, f"{home}{row.pk}/change/"):
    content = client.get(page).content.decode()
    assert "the-id" in content and "AccessDenied" in content
    assert "a-secret" not in content
    assert "Delete" not in content and "Save" not in content
for page in (f"{home}add/", f"{home}{row.pk}/delete/"):
    assert client.post(page).status_code == 403
"""


@pytest.mark.slow
def test_the_admin_shows_what_waits_without_its_arguments_and_changes_nothing() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", PROJECT], check=True)
