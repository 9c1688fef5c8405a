"""The Django app of the table of results."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks as system_checks

from beanstalk_dispatch.contrib.core_app import check_core


class ResultsConfig(AppConfig):
    """The app for INSTALLED_APPS, if BEANSTALK_DISPATCH_RESULTS is ``db``."""

    name = "beanstalk_dispatch.contrib.results"
    label = "beanstalk_results"
    verbose_name = "Beanstalk dispatch results"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # The model can be imported from now on.
        from . import checks  # noqa: PLC0415

        system_checks.register(check_core, "beanstalk_dispatch")
        checks.register()
