"""The pages of the outbox show what waits without its arguments, and change nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from beanstalk_dispatch.contrib.outbox.models import OutboxMessage

pytestmark = pytest.mark.django_db
PAGES = "/admin/beanstalk_outbox/outboxmessage/"


def test_what_waits_is_shown_without_its_arguments_and_nothing_can_be_changed() -> None:
    row = OutboxMessage.objects.create(
        task_id="the-id", function="f", queue="mail", body='{"args": ["a-secret"]}',
        error="AccessDenied",
    )  # fmt: skip
    logged_in = Client()
    logged_in.force_login(User.objects.create_superuser("ann"))
    for page in (PAGES, f"{PAGES}{row.pk}/change/"):
        content = logged_in.get(page).content.decode()
        assert "the-id" in content
        assert "AccessDenied" in content
        for hidden in ("a-secret", "Delete", "Save"):
            assert hidden not in content
    for page in (f"{PAGES}add/", f"{PAGES}{row.pk}/change/", f"{PAGES}{row.pk}/delete/"):
        assert logged_in.post(page).status_code == 403


def test_what_is_due_later_can_be_told_from_what_is_due_now() -> None:
    for task_id, hours in (("soon", 0), ("later", 2)):
        due_at = timezone.now() + timedelta(hours=hours)
        OutboxMessage.objects.create(task_id=task_id, function="f", queue="q", due_at=due_at)
    logged_in = Client()
    logged_in.force_login(User.objects.create_superuser("ann"))
    for query, shown in (("", {"soon", "later"}), ("now", {"soon"}), ("later", {"later"})):
        content = logged_in.get(f"{PAGES}?due={query}").content.decode()
        assert {each for each in ("soon", "later") if f'task_id">{each}<' in content} == shown


def test_the_model_has_its_migration() -> None:
    call_command("makemigrations", "beanstalk_outbox", check=True, dry_run=True, verbosity=0)
