"""What every method is made of: a connection, and the fields of a body as the keywords of a call."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from msgspec import Struct

from modelforge.connection import Connection, path_of

_Fields = ParamSpec("_Fields")
_Of = TypeVar("_Of")
_Self = TypeVar("_Self")
_Body = TypeVar("_Body", bound=Struct)
_Answer = TypeVar("_Answer", bound=Struct)
_Outcome = TypeVar("_Outcome")


class Calls:
    """Methods that ask a server, each by one request."""

    def __init__(self, connection: Connection, key: str | None = None) -> None:
        self._connection = connection
        self._key = key

    async def _get(self, kind: type[_Answer], *parts: object, **query: object) -> _Answer:
        return await self._connection.get(path_of(*parts, **query), kind)

    async def _post(self, kind: type[_Answer], *parts: object, body: Struct | None = None) -> _Answer:
        return await self._connection.post(path_of(*parts), {} if body is None else given(body), kind, key=self._key)

    async def _delete(self, kind: type[_Answer], *parts: object) -> _Answer:
        return await self._connection.delete(path_of(*parts), kind, key=self._key)


def given(body: Struct) -> dict[str, object]:
    """The fields that are not at their default: a server that is older may not know the others."""
    return {
        field.encode_name: value
        for field in msgspec.structs.fields(body)
        if (value := getattr(body, field.name)) != _default_of(field)
    }


def _default_of(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def takes(
    kind: Callable[_Fields, _Body],
) -> Callable[[Callable[[_Self, _Body], _Outcome]], Callable[Concatenate[_Self, _Fields], _Outcome]]:
    """Have a method that takes a Struct be called with the Struct's fields as keywords."""

    def wrap(method: Callable[[_Self, _Body], _Outcome]) -> Callable[Concatenate[_Self, _Fields], _Outcome]:
        @functools.wraps(method)
        def call(self: _Self, /, *nothing: _Fields.args, **fields: _Fields.kwargs) -> _Outcome:
            return method(self, kind(*nothing, **fields))

        return _signed(call, kind, "self")

    return wrap


def takes_of(
    kind: Callable[_Fields, _Body],
) -> Callable[[Callable[[_Self, _Of, _Body], _Outcome]], Callable[Concatenate[_Self, _Of, _Fields], _Outcome]]:
    """The same for a method that takes first what it is about: a name, or an id."""

    def wrap(method: Callable[[_Self, _Of, _Body], _Outcome]) -> Callable[Concatenate[_Self, _Of, _Fields], _Outcome]:
        @functools.wraps(method)
        def call(self: _Self, of: _Of, /, *nothing: _Fields.args, **fields: _Fields.kwargs) -> _Outcome:
            return method(self, of, kind(*nothing, **fields))

        return _signed(call, kind, *[*inspect.signature(method).parameters][:2])

    return wrap


_Call = TypeVar("_Call", bound=Callable[..., Any])


def _signed(call: _Call, kind: Callable[..., Struct], *first: str) -> _Call:
    """With the signature that `help` and editors show: what comes first, and the Struct's fields."""
    named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in first]
    returned = inspect.signature(call).return_annotation  # the wrapped method's
    fields = inspect.signature(kind).parameters.values()
    call.__signature__ = inspect.Signature([*named, *fields], return_annotation=returned)  # type: ignore[attr-defined]
    return call
