"""The Django app of the admin's pages. It has a model for permissions, and no table."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks

from beanstalk_dispatch.contrib.core_app import check_core


class WorkbenchConfig(AppConfig):
    """The app's configuration. Django finds it through ``INSTALLED_APPS``."""

    name = "beanstalk_dispatch.contrib.workbench"
    label = "beanstalk_workbench"
    verbose_name = "Beanstalk dispatch"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        checks.register(check_core, "beanstalk_dispatch")
