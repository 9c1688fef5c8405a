"""The Django app: registers the checks, and logs what this process is."""

from __future__ import annotations

from django.apps import AppConfig


class BeanstalkDispatchConfig(AppConfig):
    name = "beanstalk_dispatch"
    verbose_name = "Beanstalk dispatch"

    def ready(self) -> None:
        from . import checks, conf, execution

        checks.register()
        conf.log_start()
        execution.start()
