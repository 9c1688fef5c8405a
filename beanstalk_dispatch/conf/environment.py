"""The one reader of the environment and of Django settings: a group's settings become Values."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from django.conf import settings

from . import casts, secret_casts
from .casts import InvalidValue
from .setting import Setting, SettingsGroup

T = TypeVar("T")


class Values:
    """The values of a group's settings.

    ``values[SETTING]`` has the type that the Setting declares.
    """

    def __init__(
        self, *, sources: Mapping[str, str], problems: Sequence[str],
        values: Mapping[Setting[Any], Any],
    ) -> None:  # fmt: skip
        self.sources = sources
        """The source of each variable's value.

        It is ``settings``, ``environment``, ``file`` or ``default``.
        """
        self.problems = tuple(problems)
        """A line for each variable whose value is not valid. Such a variable has its default."""
        self._values = values

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self._values[setting]
        return value


def read_values(group: SettingsGroup) -> Values:
    """Read every setting of a group. A wrong value is a problem in the result, not an error."""
    values: dict[Setting[Any], Any] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    for setting in group.settings:
        try:
            value, source = _read_setting(setting)
        except (OSError, ValueError) as exc:
            value, source = setting.default, "default"
            problems.append(_problem_line(setting, exc))
        values[setting], sources[setting.variable] = value, source
    return Values(sources=sources, problems=problems, values=values)


def _read_setting(setting: Setting[T]) -> tuple[T, str]:
    """Return the value and its source. Raise OSError or ValueError if the value is wrong."""
    if getattr(settings, f"{setting.variable}_FILE", None):
        raise InvalidValue(f"{setting.variable}_FILE is not a Django setting; set a variable")
    value = getattr(settings, setting.variable, None)
    if isinstance(value, str):
        value = value.strip()
    # A setting can be left out. An empty secret has most likely lost its value on the way.
    if value is not None and (value != "" or setting.secret):
        if setting.secret:
            secret_casts.refuse_reference(value)
        found = setting.cast(value)
        if found is not None:
            return found, "settings"
    is_file = bool(file_of(setting))
    content = (_read_file(setting) if is_file else os.environ.get(setting.variable, "")).strip()
    if not content:
        if is_file and setting.secret:
            raise InvalidValue("the file is empty")
        return setting.default, "default"
    if setting.secret:
        secret_casts.refuse_reference(content)
    else:
        casts.refuse_shell_syntax(content)
    if is_file:
        return (setting.cast_file or setting.cast)(content), "file"
    return setting.cast(content), "environment"


def _read_file(setting: Setting[Any]) -> str:
    """Return the content of the file that ``NAME_FILE`` names."""
    from environ.fileaware_mapping import FileAwareMapping  # noqa: PLC0415 - few processes need it

    content: str = FileAwareMapping(os.environ, cache=False)[setting.variable]
    return content


def _problem_line(setting: Setting[Any], exc: OSError | ValueError) -> str:
    """Return one line of the error.

    The file of a secret is not named: its name may be the secret.
    """
    match exc:
        case OSError():
            file = "the file" if setting.secret else repr(exc.filename)
            return f"{setting.variable}_FILE: cannot read {file}: {exc.strerror}"
        case UnicodeDecodeError():
            return f"{setting.variable}_FILE: the content of the file is not UTF-8"
        case InvalidValue(reason=reason) if setting.secret:
            return f"{setting.variable}: {reason} (the value is secret and not shown)"
        case _ if setting.secret:
            return (
                f"{setting.variable}: expected a {setting.form} (the value is secret and not shown)"
            )
        case _:
            return f"{setting.variable}: {exc}"


def file_of(setting: Setting[Any]) -> str:
    """Return the file that ``NAME_FILE`` names in the environment. The empty string means none."""
    return os.environ.get(f"{setting.variable}_FILE", "")


def names_in_use() -> set[str]:
    """Return the names of all environment variables and of all Django settings."""
    return {*os.environ, *(name for name in dir(settings) if name.isupper())}


def is_given(variable: str) -> bool:
    """Return True if a Django setting, the environment or a file gives the variable a value."""
    names = (variable, f"{variable}_FILE")
    return bool(getattr(settings, variable, "")) or any(map(os.environ.get, names))


def is_overruled(setting: Setting[Any]) -> bool:
    """Return True if the environment's value has no effect: the Django settings have another."""
    given, value = getattr(settings, setting.variable, None), variable(setting.variable)
    if given is None or not value:
        return False
    try:
        return bool(setting.cast(given) != setting.cast(value))
    except ValueError:
        return True


def is_empty(variable: str) -> bool:
    """Return True if the environment has this variable without a value.

    It then counts as not set.
    """
    return variable in os.environ and not os.environ[variable].strip()


def is_in_environment(value: str) -> bool:
    """Return True if a variable of any name contains this value.

    A Django setting that was read from that variable does.
    """
    return any(value in found for found in os.environ.values())


def environment_with(changes: Mapping[str, str], *, programs: str = "") -> dict[str, str]:
    """Return the environment of a child process, which first looks for programs in a folder."""
    path = os.pathsep.join(filter(None, [programs, os.environ.get("PATH")]))
    return {**os.environ, **changes, "PATH": path}


def default_region() -> str | None:
    """Return the region that the environment names, in the order in which the AWS SDKs look."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def wants_no_color() -> bool:
    """Return True if a user wants plain text on every terminal. See https://no-color.org."""
    return bool(os.environ.get("NO_COLOR"))


def is_on_lambda() -> bool:
    """Return True in a Lambda function.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    return "AWS_LAMBDA_FUNCTION_NAME" in os.environ


def is_test() -> bool:
    """Return True in a test run of Django, which gives its mail an outbox."""
    mail = sys.modules.get("django.core.mail")
    return mail is not None and "outbox" in vars(mail)  # hasattr() would call its __getattr__()


def variable(name: str) -> str | None:
    """Return a variable of this process's environment; None if it is not set."""
    return os.environ.get(name)


def set_variables(values: Mapping[str, str | None]) -> None:
    """Set variables of this process's environment, and remove those that are None."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
