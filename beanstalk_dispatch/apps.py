"""The Django app. It registers the checks, logs the start line, and listens for SIGTERM."""

from __future__ import annotations

from django.apps import AppConfig


class BeanstalkDispatchConfig(AppConfig):
    """The app's configuration. Django finds it through ``INSTALLED_APPS``."""

    name = "beanstalk_dispatch"
    verbose_name = "Beanstalk dispatch"

    def ready(self) -> None:
        # Django's models, which some of these import, are not ready before this method is called.
        from . import client, conf, safe_task, views  # noqa: PLC0415
        from .conf.variables import CORE, WARM  # noqa: PLC0415
        from .consumers.endpoint import draining  # noqa: PLC0415
        from .logging import loggers  # noqa: PLC0415
        from .problems import (  # noqa: PLC0415
            check_log,
            checks,
            start_log,
        )
        from .running import dispatch_table  # noqa: PLC0415
        from .running.attempt import process_alone  # noqa: PLC0415

        loggers.protect_loggers()
        safe_task.BODIES[None] = process_alone
        checks.register()
        # The class is first, because it may report what is logged from here on.
        dispatch_table.start_configured_class()
        start_log.log_rooms()
        dispatch_table.start_task_sources()
        start_log.log_start()  # after the contrib room that the class may have imported
        check_log.log_on_first_request()
        views.keep_out_of_atomic_requests()
        draining.watch()
        if conf.values_of(CORE)[WARM]:
            client.start_warming()
