"""The Django app of the table of results."""

from __future__ import annotations

from django.core import checks as system_checks

from beanstalk_dispatch.contrib import core_app


class ResultsConfig(core_app.ContribApp):
    """The app for INSTALLED_APPS, if BEANSTALK_DISPATCH_RESULTS is ``db``."""

    name = "beanstalk_dispatch.contrib.results"
    label = "beanstalk_results"
    verbose_name = "Beanstalk dispatch results"

    def ready(self) -> None:
        super().ready()
        # The model can be imported from now on.
        from . import checks  # noqa: PLC0415

        system_checks.register(checks.check, system_checks.Tags.database)
