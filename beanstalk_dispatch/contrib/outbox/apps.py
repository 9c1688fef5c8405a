"""The Django app. It registers the outbox with the core, and its checks with Django."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks as system_checks

from beanstalk_dispatch.contrib.core_app import check_core


class OutboxConfig(AppConfig):
    """The app's configuration. Django finds it through ``INSTALLED_APPS``."""

    name = "beanstalk_dispatch.contrib.outbox"
    label = "beanstalk_outbox"
    verbose_name = "Beanstalk outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # The model can be imported from now on.
        from beanstalk_dispatch.scheduling import outbox  # noqa: PLC0415

        from . import checks, store  # noqa: PLC0415

        system_checks.register(check_core, "beanstalk_dispatch")
        checks.register()
        outbox.register(store.DatabaseOutbox())
