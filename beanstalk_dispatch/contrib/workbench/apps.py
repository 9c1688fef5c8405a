"""The Django app of the admin's pages. It has a model for permissions, and no table."""

from __future__ import annotations

from django.apps import AppConfig


class WorkbenchConfig(AppConfig):
    """The app's configuration. Django finds it through ``INSTALLED_APPS``."""

    name = "beanstalk_dispatch.contrib.workbench"
    label = "beanstalk_workbench"
    verbose_name = "Beanstalk dispatch"
    default_auto_field = "django.db.models.BigAutoField"
