"""The Django app of the admin's pages. It has a model for permissions, and no table."""

from __future__ import annotations

from django.apps import AppConfig


class WorkbenchConfig(AppConfig):
    """The app's configuration. Django finds it through ``INSTALLED_APPS``."""

    name = "beanstalk_dispatch.contrib.workbench"
    label = "beanstalk_workbench"
    verbose_name = "Beanstalk dispatch"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from beanstalk_dispatch.contrib import needs_core  # noqa: PLC0415

        needs_core.register_check()
