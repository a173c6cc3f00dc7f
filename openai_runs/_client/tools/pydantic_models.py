"""Pydantic models as types of arguments and answers, without a dependency on pydantic.

A model is any class with `model_json_schema` and `model_validate_json`. What pydantic alone can
describe, such as a union of models, is left to its `TypeAdapter`; a program that has such a type
has imported pydantic already.
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeGuard, Union

import msgspec

__all__ = ["Definitions", "ModelClass", "is_field", "is_model", "located", "read", "readable"]

_REF: Final = "#/$defs/"
_NO_NAME: Final = r"[^A-Za-z0-9._-]"
_LIBRARIES: Final = frozenset({"annotated_types", "pydantic"})
"""Packages whose objects within `Annotated` mean something to pydantic."""
_MAX_PROBLEMS: Final = 10
"""Problems that one error names."""


class ModelClass(typing.Protocol):
    """A class that describes and reads its instances by itself."""

    __name__: str

    def model_json_schema(self) -> dict[str, Any]:
        """Return the JSON schema."""

    def model_validate_json(self, text: bytes, /) -> Any:
        """Return the instance that the JSON text holds."""


class MismatchError(ValueError):
    """JSON that does not fit a model."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        """Keep each problem: its path below the model, and what is wrong there."""
        super().__init__("; ".join(text for _, text in problems))
        self.problems = problems


class _Adapted(type):
    """The class of classes that read with a `TypeAdapter`: anything may be an instance."""

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def is_model(kind: object) -> TypeGuard[ModelClass]:
    """Return whether `kind` is a class with the methods of a pydantic model."""
    names = ("model_json_schema", "model_validate_json")
    return isinstance(kind, type) and all(callable(getattr(kind, name, None)) for name in names)


def is_field(value: object) -> bool:
    """Return whether `value` is what pydantic's `Field()` returns."""
    return any(
        (one.__module__, one.__name__) == ("pydantic.fields", "FieldInfo")
        for one in type(value).__mro__
    )


def readable(hint: Any) -> Any:
    """Return the hint as msgspec can read it, with what is pydantic's as a model class.

    Raises:
        TypeError: Pydantic cannot describe it.
    """
    pydantic = sys.modules.get("pydantic")  # imported by whoever has such a type
    if pydantic is not None and _is_for_pydantic(hint):
        return _adapted(hint, pydantic.TypeAdapter)
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        inner = readable(arguments[0])
        return hint if inner is arguments[0] else Annotated[(inner, *arguments[1:])]
    inside = tuple(readable(one) if _is_type(one) else one for one in arguments)
    if all(new is old for new, old in zip(inside, arguments, strict=True)):
        return hint
    if _is_union(hint):
        return Union[inside]  # noqa: UP007 - `|` refuses some hints
    return hint.copy_with(inside) if hasattr(hint, "copy_with") else hint.__origin__[inside]


def _is_type(argument: object) -> bool:
    is_alias = hasattr(argument, "__value__")  # of a `type` statement
    return is_alias or isinstance(argument, type) or typing.get_origin(argument) is not None


def _is_union(hint: object) -> bool:
    return typing.get_origin(hint) in {Union, types.UnionType}


def _is_for_pydantic(hint: Any) -> bool:
    """Return whether pydantic alone can read the hint itself, whatever is within it."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        named = {type(one).__module__.partition(".")[0] for one in hint.__metadata__}
        inside = getattr(hint.__origin__, "__value__", hint.__origin__)
        return not named.isdisjoint(_LIBRARIES) or (_is_union(inside) and _is_for_pydantic(inside))
    hint = getattr(hint, "__value__", hint)  # of a `type` statement
    if _is_union(hint):
        members = [one for one in typing.get_args(hint) if one is not types.NoneType]
        return len(members) > 1 and any(is_model(one) or _is_for_pydantic(one) for one in members)
    kind = origin or hint
    if not isinstance(kind, type) or is_model(hint):
        return False
    return hasattr(kind, "__pydantic_validator__") or hasattr(kind, "__get_pydantic_core_schema__")


def _adapted(hint: Any, adapt: Callable[[Any], Any]) -> type:
    """Return a model class that reads and describes the hint as pydantic's `TypeAdapter` does."""
    try:
        adapter = adapt(hint)
        schema = adapter.json_schema()
    except Exception as error:  # those of pydantic have no class in common with ours
        msg = f"pydantic cannot describe {hint!r}: {_first_sentence(error)}"
        raise TypeError(msg) from error
    kind = getattr(typing.get_origin(hint) or hint, "__name__", "Value")
    methods = {
        "model_json_schema": staticmethod(lambda: schema),
        "model_validate_json": staticmethod(adapter.validate_json),
    }
    meaning = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, msgspec.Meta)]
    adapted = _Adapted(str(schema.get("title", kind)), (), methods)
    return Annotated[(adapted, *meaning)] if meaning else adapted  # type: ignore[return-value]


def read(kind: type, value: object) -> object:
    """Return the instance of a model that a JSON value holds; a `dec_hook` of msgspec.

    Raises:
        MismatchError: The value does not fit.
        NotImplementedError: The class is no model.
        RuntimeError: The model has an error of its own.
    """
    if not is_model(kind):
        raise NotImplementedError(kind)
    try:
        return kind.model_validate_json(msgspec.json.encode(value))
    except ValueError as error:
        raise MismatchError([*_problems(error, value)]) from error
    except TypeError as error:  # msgspec would show its text, which is for nobody else
        msg = f"{kind.__name__} could not be validated"
        raise RuntimeError(msg) from error


def _problems(error: ValueError, value: object) -> Iterator[tuple[str, str]]:
    """Yield path and text of each problem that a `ValidationError` of pydantic has."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        yield "", str(error)
        return
    every = dict.fromkeys((_path(one["loc"], value), str(one["msg"])) for one in errors())
    yield from [*every][:_MAX_PROBLEMS]
    if len(every) > _MAX_PROBLEMS:
        yield "", f"{len(every) - _MAX_PROBLEMS} more problems"


def _path(location: tuple[str | int, ...], value: Any) -> str:
    """Return a location as a path of the JSON value, without the names of a union's variants."""
    path = ""
    for number, part in enumerate(location, 1):
        if isinstance(part, int) and isinstance(value, list) and part < len(value):
            path, value = f"{path}[{part}]", value[part]
        elif isinstance(value, dict) and part in value:
            path, value = f"{path}.{part}", value[part]
        elif isinstance(value, dict) and number == len(location):  # missing
            path = f"{path}.{part}"
    return path


def located(error: msgspec.ValidationError) -> msgspec.ValidationError:
    """Return the error with the full path of each problem, where it is one of a model."""
    cause = error.__cause__
    if not isinstance(cause, MismatchError):
        return error
    place = str(error).removeprefix(str(cause)).removeprefix(" - at `").removesuffix("`") or "$"
    problems = [
        f"{text} - at `{place}{path}`" if f"{place}{path}" != "$" else text
        for path, text in cause.problems
    ]
    return msgspec.ValidationError("; ".join(problems))


class Definitions:
    """The schemas of the models within one schema, and all that they refer to."""

    def __init__(self, reserved: typing.Container[str] = ()) -> None:
        """Use none of the names that are reserved."""
        self.parts: dict[str, dict[str, Any]] = {}
        """By name, for `$defs`."""
        self._reserved = reserved

    def add(self, kind: type) -> dict[str, Any]:
        """Return the schema of a model, or a reference to it; a `schema_hook` of msgspec.

        Raises:
            NotImplementedError: The class is no model.
            TypeError: It has no JSON schema.
        """
        if not is_model(kind):
            raise NotImplementedError(kind)
        try:
            schema = dict(kind.model_json_schema())
        except Exception as error:  # those of pydantic have no class in common with ours
            msg = f"{kind.__name__}: {_first_sentence(error)}"
            raise TypeError(msg) from error
        parts: dict[str, Any] = schema.pop("$defs", {})
        if "properties" in schema:
            name = re.sub(_NO_NAME, "_", kind.__name__)
            parts = {**parts, name: schema}
            schema = {"$ref": _REF + name}
        names = self._names_for(parts)
        self.parts |= {names[name]: _renamed(part, names) for name, part in parts.items()}
        result: dict[str, Any] = _renamed(schema, names)
        return result

    def _names_for(self, parts: dict[str, Any]) -> dict[str, str]:
        """Return a name for each part: its own, or one with a number if another part has that."""
        number, names = 1, {name: name for name in parts}
        while any(
            new in self._reserved or self.parts.get(new, part) != part
            for new, part in ((names[name], _renamed(part, names)) for name, part in parts.items())
        ):
            number += 1
            names = {name: f"{name}_{number}" for name in parts}
        return names


def _first_sentence(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "").partition(". ")[0]


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    """Return the schema with its references under their new names."""
    if isinstance(schema, dict):
        return {name: _renamed(part, names) for name, part in schema.items()}
    if isinstance(schema, list):
        return [_renamed(part, names) for part in schema]
    if isinstance(schema, str) and schema.startswith(_REF):
        return _REF + names.get(schema.removeprefix(_REF), schema.removeprefix(_REF))
    return schema
