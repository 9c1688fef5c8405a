"""The types of schedule_function: a type checker compares a call with the task's own signature."""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

if TYPE_CHECKING:
    from functools import _Wrapped  # the type that functools.wraps returns, in typeshed only

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class AFunction(Protocol[P]):
    """A function. A class has no code, so that its ``__init__`` is not taken for the task."""

    @property
    def __code__(self) -> CodeType: ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...


class ASafeTask(Protocol[P]):
    """An instance of a SafeTask subclass. A class has no ``cancelled`` that is a bool."""

    @property
    def cancelled(self) -> bool: ...

    def run(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...


class ADjangoTask(Protocol[P]):
    """A Task of django.tasks."""

    @property
    def module_path(self) -> str: ...

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...


class TypedCall(Protocol[T_co]):
    """The signature of ``schedule_function``, and of its awaitable twin."""

    @overload
    def __call__(self, queue: str, function: str, /, *args: Any, **kwargs: Any) -> T_co: ...
    @overload
    def __call__(
        self, queue: str, function: type[ASafeTask[P]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T_co: ...
    @overload
    def __call__(
        self, queue: str, function: AFunction[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> T_co: ...
    @overload
    def __call__(
        self, queue: str, function: ASafeTask[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> T_co: ...
    @overload
    def __call__(
        self, queue: str, function: ADjangoTask[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> T_co: ...
    @overload
    def __call__(
        self, queue: str, function: _Wrapped[..., Any, P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> T_co: ...


def typed_call(function: Callable[..., T_co]) -> TypedCall[T_co]:
    """Return ``function`` itself, with the types of TypedCall."""
    return cast("TypedCall[T_co]", function)
