"""The Django app. It registers the checks, logs the start line, and prepares a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.core import checks
from django.core.checks import CheckMessage

if TYPE_CHECKING:
    from .safe_task import SafeTask


class BeanstalkDispatchConfig(AppConfig):
    """The app's configuration. Django finds it through ``INSTALLED_APPS``.

    A process that neither schedules nor runs tasks imports little of the package. Models, which
    some modules import, are not ready before ``ready`` is called.
    """

    name = "beanstalk_dispatch"
    verbose_name = "Beanstalk dispatch"

    def ready(self) -> None:
        from . import conf  # noqa: PLC0415
        from .conf.variables import CORE, SAFE_TASK, WARM, WORKER  # noqa: PLC0415
        from .logging import loggers  # noqa: PLC0415
        from .problems import start_log  # noqa: PLC0415
        from .process.role import PROCESS  # noqa: PLC0415

        loggers.protect_loggers()
        checks.register(_check, "beanstalk_dispatch")
        values = conf.values_of(CORE)
        # The class is first, because it may report what is logged from here on.
        if values.sources[SAFE_TASK.variable] != "default":
            from .running.definitions import configured  # noqa: PLC0415

            configured.start_configured_class()
        if PROCESS.is_server:
            return
        start_log.log_rooms()
        if values[WORKER] or values.problems:
            _prepare_worker()
        else:
            start_log.log_start()
        if values[WARM] and not conf.is_on_lambda():  # whose handler does so
            from . import client  # noqa: PLC0415

            client.start_warming()

    def process_alone(self, task: SafeTask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run a task whose ``process`` a project calls by itself: see ``SafeTask.process``."""
        from .running.attempt import process_alone  # noqa: PLC0415

        process_alone(task, args, kwargs)


def _prepare_worker() -> None:
    """Listen for the first request, and for the end of the server."""
    from .consumers.endpoint import draining  # noqa: PLC0415
    from .problems import check_log, start_log  # noqa: PLC0415

    start_log.log_start()  # after the contrib room that the class may have imported
    check_log.log_on_first_request()
    draining.watch()


def _check(*args: Any, **kwargs: Any) -> list[CheckMessage]:
    """Run the system checks, which import more of the package than a process needs to start."""
    from .problems.checks import check  # noqa: PLC0415

    return check(*args, **kwargs)
