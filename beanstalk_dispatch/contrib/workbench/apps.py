"""The Django app of the admin's pages. It has a model for permissions, and no table."""

from __future__ import annotations

from beanstalk_dispatch.contrib import core_app


class WorkbenchConfig(core_app.ContribApp):
    """The app's configuration. Django finds it through ``INSTALLED_APPS``."""

    name = "beanstalk_dispatch.contrib.workbench"
    label = "beanstalk_workbench"
    verbose_name = "Beanstalk dispatch"
