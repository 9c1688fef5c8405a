"""The Django app. It registers the outbox with the core, and its checks with Django."""

from __future__ import annotations

from django.core import checks as system_checks

from beanstalk_dispatch.contrib import core_app
from beanstalk_dispatch.scheduling import outbox


class OutboxConfig(core_app.ContribApp):
    """The app's configuration. Django finds it through ``INSTALLED_APPS``."""

    name = "beanstalk_dispatch.contrib.outbox"
    label = "beanstalk_outbox"
    verbose_name = "Beanstalk outbox"

    def ready(self) -> None:
        super().ready()
        # The model can be imported from now on.
        from . import checks, store  # noqa: PLC0415

        system_checks.register(checks.check, system_checks.Tags.database)
        outbox.register(store)
