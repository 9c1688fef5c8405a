"""The dispatch table: name → the function or SafeTask subclass that runs, imported once."""

from __future__ import annotations

import functools
import inspect
import logging
import types
from typing import Any

from django.utils.module_loading import import_string

from .conf import SETTINGS, Config, get_config
from .exceptions import ConfigurationError, UnknownFunction
from .safe_task import SafeTask

logger = logging.getLogger("beanstalk_dispatch")


@functools.lru_cache(maxsize=1024)
def resolve(name: str, config: Config) -> Any:
    """The function or SafeTask subclass a table name stands for, imported once.

    Raises UnknownFunction, whose text is what beanstalk-dispatch 0.1 answered.
    """
    if not config.table:
        raise UnknownFunction("No beanstalk dispatch table configured")
    path = config.table.get(name)
    if path is None:
        raise UnknownFunction(f"Requested function not found: {name}")
    try:
        runnable = locate(path)
    except Exception as exc:
        raise UnknownFunction(f"Unable to locate function: {path}") from exc
    if inspect.isclass(runnable) and not issubclass(runnable, SafeTask):
        raise UnknownFunction(f"Requested task is not a SafeTask subclass: {name}")
    if fault := _fault(runnable):
        raise UnknownFunction(f"Requested task {fault}: {name}")
    return runnable


def _fault(runnable: Any) -> str | None:
    if isinstance(runnable, SafeTask):
        return "is a SafeTask instance; list its class or its function"
    if not callable(runnable):
        return f"is a {type(runnable).__name__}, not a function"
    run: Any = getattr(runnable, "run", None) if inspect.isclass(runnable) else runnable
    if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
        return "is a generator function, which would never run"
    return None


@functools.lru_cache(maxsize=1)
def safe_task_class(config: Config) -> type[SafeTask]:
    """The class that wraps plain functions. Raises ConfigurationError."""
    variable = SETTINGS["safe_task"].variable
    try:
        wrapper = import_string(config.safe_task)
    except ImportError as exc:
        raise ConfigurationError(f"{variable}: cannot import {config.safe_task}: {exc}") from exc
    if not (inspect.isclass(wrapper) and issubclass(wrapper, SafeTask)):
        raise ConfigurationError(f"{variable}: {config.safe_task} is not a SafeTask subclass")
    return wrapper


@functools.lru_cache(maxsize=1024)
def task_class(name: str, config: Config) -> type[SafeTask]:
    """The class that runs a table entry: the configured one, which a listed class gets as a base.

    Raises UnknownFunction or ConfigurationError.
    """
    runnable: Any = resolve(name, config)
    configured: Any = safe_task_class(config)
    if not inspect.isclass(runnable):
        runnable = configured
    elif not (issubclass(runnable, configured) or issubclass(configured, runnable)):
        own = {"__module__": runnable.__module__, "__qualname__": runnable.__qualname__}
        try:
            runnable = types.new_class(
                runnable.__name__, (runnable, configured), exec_body=lambda body: body.update(own)
            )
        except TypeError as exc:
            variable = SETTINGS["safe_task"].variable
            raise ConfigurationError(
                f"{variable}: {config.safe_task} cannot be a base of {name}: {exc}"
            ) from exc
    task_class: type[SafeTask] = runnable
    return task_class


def start() -> None:
    """Let the configured class set itself up. A failure is logged, and the checks tell it too."""
    try:
        config = get_config()
        if config.sources["safe_task"] != "default":
            safe_task_class(config).ready()
    except Exception as exc:
        logger.error("start of the SafeTask failed: %s", exc)


def locate(path: str) -> Any:
    """Import ``package.module.attribute``; the attribute may itself be dotted (a static method)."""
    try:
        return import_string(path)
    except ModuleNotFoundError as exc:
        parent, _, attribute = path.rpartition(".")
        if exc.name != parent or "." not in parent:
            raise
        try:
            return getattr(locate(parent), attribute)
        except (ImportError, AttributeError):
            raise exc from None
