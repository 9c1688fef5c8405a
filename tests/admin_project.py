"""A project with Django's admin, in one process: prints what the pages of results answer."""

from __future__ import annotations

import django
from django.conf import settings
from django.core.management import call_command

LIST = "/admin/beanstalk_results/storedresult/"
_CONTRIB = ("admin", "auth", "contenttypes", "messages", "sessions")

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        *[f"django.contrib.{name}" for name in _CONTRIB],
        "beanstalk_dispatch",
        "beanstalk_dispatch.contrib.results",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    ROOT_URLCONF="tests.admin_urls",
    SECRET_KEY="tests-only",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                    "django.template.context_processors.request",
                ]
            },
        }
    ],
    USE_TZ=True,
)


def main() -> None:
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    from django.test import Client
    from django.utils import timezone

    from beanstalk_dispatch.contrib.results.models import StoredResult

    StoredResult.objects.create(
        id="the-id", function="shop.tasks.pay", status="FAILED", expires_at=timezone.now(),
        errors='[{"traceback": "boom"}]',
    )  # fmt: skip
    client = Client()
    client.force_login(User.objects.create_superuser("me"))
    for path in (LIST, f"{LIST}?q=the-id", f"{LIST}the-id/change/", f"{LIST}add/"):
        response = client.get(path)
        print(response.status_code, "shop.tasks.pay" in response.content.decode())
    print(client.post(f"{LIST}the-id/change/", {"function": "other"}).status_code)


main()
