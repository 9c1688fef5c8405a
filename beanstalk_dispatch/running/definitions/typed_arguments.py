"""Arguments that JSON cannot carry: written as JSON, and rebuilt by the task's annotations.

A message lists the arguments that its sender has converted. Their types are those of the worker's
own annotations: nothing in a message names a type, and nothing is imported for it.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Union
from uuid import UUID

from django.db.models import Model

from beanstalk_dispatch.exceptions import MalformedMessage

from .signature import annotated_signature, signature_of

_WRITE: Final[Mapping[type, Callable[[Any], Any]]] = {
    UUID: str,
    Decimal: str,
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: timedelta.total_seconds,
}
_READ: Final[Mapping[type, tuple[type, Callable[[Any], Any]]]] = {
    UUID: (str, UUID),
    Decimal: (str, Decimal),
    datetime: (str, datetime.fromisoformat),
    date: (str, date.fromisoformat),
    time: (str, time.fromisoformat),
    timedelta: (float, lambda seconds: timedelta(seconds=seconds)),
}
_PLAIN: Final = (str, int, float, bool, type(None))
_NO_JSON: Final = (Model, bytes, bytearray, memoryview, set, frozenset, complex)

Key = int | str
"""An argument: the position of a positional one, the name of a keyword argument."""


class CannotRebuild(Exception):
    """A value that does not fit its annotation, or has none."""


class Annotations:
    """The annotations of a function's parameters, read once for each use."""

    def __init__(self, function: Any, *, skipped: int = 0) -> None:
        """Leave out the first ``skipped`` parameters. Raise as ``signature_of`` does."""
        self._parameters = list(signature_of(function).parameters.values())[skipped:]
        self.types: dict[str, Any] = {}
        self.unreadable: dict[str, str] = {}
        """Parameter → why its annotation cannot be read."""
        try:
            annotated = annotated_signature(function).parameters
        except Exception as exc:
            self.unreadable = {each.name: str(exc) for each in self._parameters}
            return
        names = getattr(inspect.unwrap(function), "__globals__", {})
        for each in self._parameters:
            if (annotation := annotated[each.name].annotation) is each.empty:
                continue
            try:
                self.types[each.name] = _evaluated(annotation, names)
            except Exception as exc:
                self.unreadable[each.name] = str(exc)

    def of(self, key: Key) -> tuple[str, Any]:
        """Return the parameter that an argument is for, and its annotation, which may be None."""
        name = key if isinstance(key, str) else self._name_at(key)
        kinds = {each.kind: each.name for each in self._parameters}
        if not any(each.name == name for each in self._parameters):
            name = kinds.get(inspect.Parameter.VAR_KEYWORD, name)
        return name, self.types.get(name)

    def _name_at(self, index: int) -> str:
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [each.name for each in self._parameters if each.kind in positional]
        rest = [each.name for each in self._parameters if each.kind is each.VAR_POSITIONAL]
        return [*names[: index + 1], *rest, ""][min(index, len(names))]


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, globalns=names)["it"]


def converted(
    args: Sequence[Any], kwargs: Mapping[str, Any], keys: Sequence[Key], known: Annotations
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments with those of ``keys`` as JSON.

    Raise CannotRebuild with advice if an annotation does not bring a value back, and TypeError for
    a value that cannot be written.
    """
    new_args, new_kwargs = list(args), dict(kwargs)
    for key in keys:
        value = kwargs[key] if isinstance(key, str) else args[key]
        if type(value) in _PLAIN:  # a number that JSON does not have
            raise TypeError(type(value).__name__)
        written = write(value)
        name, annotation = known.of(key)
        if name in known.unreadable:
            raise CannotRebuild(
                f"{name!r} has an annotation that cannot be read: {known.unreadable[name]}"
            )
        if advice := _advice_on(annotation, written, value, name or key):
            raise CannotRebuild(advice)
        _set(new_args, new_kwargs, key, written)
    return new_args, new_kwargs


def rebuilt(
    args: Sequence[Any], kwargs: Mapping[str, Any], keys: Sequence[Key], known: Annotations
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments with those of ``keys`` as the annotations say.

    Raise MalformedMessage with the name of an argument that does not fit.
    """
    new_args, new_kwargs = list(args), dict(kwargs)
    for key in keys:
        name, annotation = known.of(key)
        try:
            value = kwargs[key] if isinstance(key, str) else args[key]
            _set(new_args, new_kwargs, key, read(annotation, value))
        except Exception:  # an __init__ of the project's own may raise anything
            reason = "needs an annotation that says its type"
            if name in known.unreadable:
                reason = f"has an annotation that cannot be read: {known.unreadable[name]}"
            elif annotation is not None:
                reason = f"does not fit {_name_of(annotation)}"
            raise MalformedMessage(f"argument {name or key!r} {reason}") from None
    return new_args, new_kwargs


def _set(args: list[Any], kwargs: dict[str, Any], key: Key, value: Any) -> None:
    if isinstance(key, str):
        kwargs[key] = value
    else:
        args[key] = value


def _advice_on(annotation: Any, written: Any, value: object, name: Key) -> str:
    """Return what to write so that ``value`` comes back; empty if the annotation brings it back."""
    kind = type(value).__name__
    annotate = f"annotate the parameter: {name}: {kind}"
    try:
        found = read(annotation, written)
    except NameError as exc:  # from an annotation of a field
        return f"correct {kind}: {exc}"
    except Exception:
        return annotate
    return "" if type(found) is type(value) and found == value else annotate


def write(value: Any) -> Any:
    """Return ``value`` as JSON. Raise TypeError for a type that is not one of those here."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in _WRITE:
        return _WRITE[kind](value)
    if isinstance(value, Enum):
        return write(value.value)
    if hasattr(kind, "model_validate"):  # a model of Pydantic
        return value.model_dump(mode="json")
    return _write_container(value)


def _write_container(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: write(getattr(value, each.name)) for each in fields(value)}
    if type(value) is list:
        return [write(each) for each in value]
    if type(value) is dict and all(type(each) is str for each in value):
        return {name: write(each) for name, each in value.items()}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read(annotation: Any, value: Any) -> Any:
    """Return the value of an annotation that ``write`` has written. Raise any exception else."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {Union, types.UnionType}:
        return _read_any_of(arguments, value)
    if origin is list and type(value) is list:
        return [read(arguments[0], each) for each in value]
    if origin is dict and type(value) is dict:
        return {name: read(arguments[1], each) for name, each in value.items()}
    return _read_class(annotation, value)


def _read_any_of(annotations: Sequence[Any], value: Any) -> Any:
    """Return the value of the first annotation that fits. Raise NameError for one unreadable."""
    for each in annotations:
        try:
            return read(each, value)
        except NameError:
            raise
        except Exception:  # noqa: S112 - the next one may fit
            continue
    raise CannotRebuild


def _read_class(kind: Any, value: Any) -> Any:
    if kind in _READ:
        expected, make = _READ[kind]
        if type(value) is expected:
            return make(value)
    elif kind in _PLAIN:
        if type(value) is kind:
            return value
    elif inspect.isclass(kind) and issubclass(kind, Enum):
        return next(each for each in kind if write(each) == value)
    elif is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        make_one: Any = kind
        return make_one(**{name: read(hints[name], each) for name, each in value.items()})
    elif hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    raise CannotRebuild


def _name_of(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def problems(function: Any, *, skipped: int) -> Iterator[str]:
    """Yield the parameters whose annotations no message can fill."""
    try:
        known = Annotations(function, skipped=skipped)
    except Exception as exc:
        yield f"its parameters cannot be read: {exc}"
        return
    for reason in dict.fromkeys(known.unreadable.values()):
        yield f"its annotations cannot be read: {reason}"
    for name, annotation in known.types.items():
        if inspect.isclass(annotation) and issubclass(annotation, _NO_JSON):
            yield f"{name!r} is annotated as {annotation.__name__}, which no message can carry"
