"""The Django app: registers the checks, logs what this process is, notices a SIGTERM."""

from __future__ import annotations

from django.apps import AppConfig


class BeanstalkDispatchConfig(AppConfig):
    name = "beanstalk_dispatch"
    verbose_name = "Beanstalk dispatch"

    def ready(self) -> None:
        from . import checks, conf
        from . import dispatch_table as table
        from .endpoint import draining

        checks.register()
        conf.log_start()
        table.start()
        draining.watch()
