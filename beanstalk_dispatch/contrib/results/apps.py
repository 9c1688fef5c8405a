"""The Django app of the table of results."""

from __future__ import annotations

from django.apps import AppConfig


class ResultsConfig(AppConfig):
    """The app for INSTALLED_APPS, if BEANSTALK_DISPATCH_RESULTS is ``db``."""

    name = "beanstalk_dispatch.contrib.results"
    label = "beanstalk_results"
    verbose_name = "Beanstalk dispatch results"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # The model can be imported from now on.
        from . import checks  # noqa: PLC0415

        checks.register()
