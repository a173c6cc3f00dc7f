"""JSON schemas of Python types, and the decoding of JSON text into them.

Schema and decoder are both made by msgspec, or by a pydantic model itself, so the schema that a
model is sent and what is decoded cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from threading import Lock
from typing import Any, Final, Generic, TypeVar, get_origin

import msgspec

from openai_runs._client.tools.pydantic_models import Definitions, located, read, readable
from openai_runs._protocol.json_repair import object_in

__all__ = ["ObjectSchema", "as_strict", "response_format", "schema_of", "summary"]

T = TypeVar("T")
JSONSchema = dict[str, Any]

_BUILDING: Final = Lock()
"""Held while a decoder is built: two threads that do so at once end the process (msgspec)."""
_NO_NAME: Final = r"[^A-Za-z0-9_-]+"
_REF: Final = "#/$defs/"
_MOVED_TO_DESCRIPTION: Final = (
    "default",
    "minLength",
    "maxLength",
    "uniqueItems",
    "contentEncoding",
)
"""Keywords that strict mode rejects; they are moved into the description."""
_DROPPED: Final = frozenset({*_MOVED_TO_DESCRIPTION, "discriminator"})
_STRICT_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_LOOKAROUND: Final = r"\(\?<?[=!]"
"""What no pattern may have in strict mode; pydantic writes one for a `Decimal`."""
_NULL: Final = {"type": "null"}
_TYPE_NAMES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}


class ObjectSchema(Generic[T]):
    """A type whose values are JSON objects: its JSON schema and its decoder.

    Raises:
        TypeError: The type, or one within it, has no JSON schema, or is no object.
    """

    def __init__(self, kind: type[T]) -> None:
        """Build decoder and schema."""
        try:
            kind = readable(kind)
            with _BUILDING:
                self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind, dec_hook=read)
                self.json_schema: JSONSchema = _flat_schema(kind)
                """With everything it refers to under `$defs`."""
        except (TypeError, NameError) as error:
            reason = str(error).strip().splitlines()[-1]  # msgspec's advice precedes it
            msg = f"{getattr(kind, '__name__', kind)}: {reason}"
            raise TypeError(msg) from error

    def decode(self, text: str | bytes) -> T:
        """Return the value that `text` holds.

        A null for a field that has a default and takes no null is that default: strict mode
        makes a model write one, and others do so unasked. What is almost JSON is read where there
        is only one way to read it.

        Raises:
            msgspec.MsgspecError: It is no JSON, or does not fit; the message names the path.
            RecursionError: It is nested too deeply.
            UnicodeError: It is no text.
        """
        try:
            return self._decode(text)
        except (msgspec.DecodeError, UnicodeError):
            repaired = object_in(text if isinstance(text, str) else text.decode())
            if not repaired:
                raise
        return self._decode(repaired)

    def _decode(self, text: str | bytes) -> T:
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            given = msgspec.json.decode(text)
            without_nulls = _without_nulls(given, self.json_schema, self.json_schema)
            if without_nulls == given:
                raise located(error) from error.__cause__
        try:
            return self._decoder.decode(msgspec.json.encode(without_nulls))
        except msgspec.ValidationError as error:
            raise located(error) from error.__cause__


@lru_cache(maxsize=256)
def schema_of(kind: type[T]) -> ObjectSchema[T]:
    """Return the schema of a Struct, dataclass or TypedDict; made once for each type.

    Raises:
        TypeError: It has no JSON schema, or its values are no objects.
    """
    return ObjectSchema(kind)


def response_format(value: object) -> object:
    """Return a `response_format` as it is sent: a type becomes its strict JSON schema.

    Raises:
        TypeError: Strict mode cannot express the type.
    """
    if not isinstance(value, type) and get_origin(value) is None:
        return value
    plain = schema_of(value).json_schema
    name = str(plain.get("title", "response"))
    schema = as_strict(plain, f"response_format {name}")
    described = {"name": re.sub(_NO_NAME, "_", name)[:64], "schema": schema}
    if schema.get("description"):
        described["description"] = schema["description"]
    return {"type": "json_schema", "json_schema": {**described, "strict": True}}


def summary(docstring: str | None) -> str:
    r"""Return the first paragraph of a docstring, as one line.

    >>> summary("Return the weather\n    of a city.\n\n    At length.")
    'Return the weather of a city.'
    """
    return " ".join((docstring or "").strip().partition("\n\n")[0].split())


def as_strict(schema: JSONSchema, what: str) -> JSONSchema:
    """Return the schema in the subset that strict mode accepts.

    All keys are required, and null stands for those that may be left out; no object takes
    further keys. Keywords that are rejected move into the description.

    Args:
        schema: A schema as `ObjectSchema` has it.
        what: What it belongs to, for errors.

    Raises:
        TypeError: It cannot be expressed: free keys, tuples, or any value at all.
    """
    return _strict(schema, what)


def _flat_schema(kind: Any) -> JSONSchema:
    """Return the schema with its own object on top, and not as a reference."""
    top, parts = _components(kind)
    name = top.get("$ref", "").removeprefix(_REF)
    schema = parts.get(name, top)
    if "properties" not in schema:
        msg = "it is no object with named fields; use a Struct, dataclass, TypedDict or model"
        raise TypeError(msg)
    if f'"{_REF}{name}"'.encode() not in msgspec.json.encode(parts):
        parts.pop(name)
    return {**schema, "$defs": parts} if parts else dict(schema)


def _components(kind: Any) -> tuple[JSONSchema, dict[str, JSONSchema]]:
    """Return the schema, and those it refers to by name."""
    models = Definitions()
    try:
        top, parts = _generated(kind, models)
        if not models.parts.keys().isdisjoint(parts):
            models = Definitions(parts)
            top, parts = _generated(kind, models)
    except KeyError as error:  # msgspec finds no second name for it
        msg = f"two types have the name {error.args[0].__name__!r}; rename one"
        raise TypeError(msg) from error
    return top, parts | models.parts


def _generated(kind: Any, models: Definitions) -> tuple[JSONSchema, dict[str, JSONSchema]]:
    (top,), parts = msgspec.json.schema_components(
        (kind,), schema_hook=models.add, ref_template=_REF + "{name}"
    )
    return top, parts


def _resolved(schema: Any, root: JSONSchema) -> JSONSchema:
    """Return what the schema refers to, or itself; an empty schema for `False` and `True`."""
    if not isinstance(schema, dict):
        return {}
    if "$ref" not in schema:
        return schema
    found: JSONSchema = root["$defs"].get(schema["$ref"].removeprefix(_REF), {})
    return found


def _variants(schema: Any, root: JSONSchema) -> list[JSONSchema]:
    found = _resolved(schema, root)
    parts = found.get("anyOf", found.get("oneOf"))
    if parts is None:
        return [found]
    return [variant for part in parts for variant in _variants(part, root)]


def _takes_null(schema: Any, root: JSONSchema) -> bool:
    return any(
        part.get("type") == "null" or None in part.get("enum", ()) or not part.keys() - {"title"}
        for part in _variants(schema, root)
    )


def _without_nulls(value: Any, schema: Any, root: JSONSchema) -> Any:
    """Return `value` without the nulls that stand for a key that was to be left out."""
    if isinstance(value, list):
        arrays = [part for part in _variants(schema, root) if "items" in part]
        items = arrays[0]["items"] if arrays else {}
        return [_without_nulls(item, items, root) for item in value]
    if not isinstance(value, dict):
        return value
    part = _object_variant(value, schema, root)
    known, others = part.get("properties", {}), part.get("additionalProperties")
    optional = known.keys() - set(part.get("required", ()))
    return {
        name: _without_nulls(inner, known.get(name, others), root)
        for name, inner in value.items()
        if inner is not None or name not in optional or _takes_null(known[name], root)
    }


def _object_variant(value: Mapping[str, Any], schema: Any, root: JSONSchema) -> JSONSchema:
    """Return the variant of a union that `value` belongs to: the one with its tag."""
    objects = [part for part in _variants(schema, root) if part.get("type") == "object"]
    chosen = _resolved(schema, root).get("discriminator")
    if chosen is not None:
        tag = str(value.get(chosen["propertyName"]))
        return _resolved({"$ref": chosen["mapping"].get(tag, "")}, root)
    fitting = (one for one in objects if value.keys() <= one.get("properties", {}).keys())
    return next(fitting, objects[0] if objects else {})


def _strict(schema: Any, path: str) -> JSONSchema:
    _check_expressible(schema, path)
    moved = [
        f"{name}: {_written(schema[name])}"
        for name in _MOVED_TO_DESCRIPTION
        if schema.get(name) is not None
    ]
    result = {name: value for name, value in schema.items() if name not in _DROPPED}
    if result.get("format", "date") not in _STRICT_FORMATS:
        moved.append(f"format: {result.pop('format')}")
    if re.search(_LOOKAROUND, result.get("pattern", "")):
        moved.append(f"pattern: {result.pop('pattern')}")
    if moved:
        result["description"] = f"{result.get('description', '')} ({', '.join(moved)})".strip()
    if "oneOf" in result:
        result["anyOf"] = result.pop("oneOf")
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "$ref" in result and len(result) > 1:  # strict mode allows no keyword beside a reference
        result["anyOf"] = [{"$ref": result.pop("$ref")}]
    if "enum" in result:
        result.setdefault("type", _types_of(result["enum"]))
    for keyword, walk in _WALKS.items():
        if keyword in result:
            result[keyword] = walk(result[keyword], path)
    return _strict_object(result, path) if result.get("type") == "object" else result


def _check_expressible(schema: Any, path: str) -> None:
    if not isinstance(schema, dict) or not schema.keys() - {"title", "description", "default"}:
        raise _inexpressible(path, "a value of any kind")
    if "prefixItems" in schema:
        raise _inexpressible(path, "a tuple")
    if schema.get("type") == "array" and "items" not in schema:
        raise _inexpressible(path, "a list of anything")


_WALKS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "items": lambda part, path: _strict(part, f"{path}[...]"),
    "$defs": lambda parts, path: {name: _strict(part, name) for name, part in parts.items()},
    "anyOf": lambda parts, path: [_strict(part, path) for part in parts],
}


def _strict_object(schema: JSONSchema, path: str) -> JSONSchema:
    if "properties" not in schema or isinstance(schema.get("additionalProperties"), dict):
        raise _inexpressible(path, "an object with free keys, such as a dict,")
    required = schema.get("required", ())
    properties = {
        name: _strict(part, f"{path}.{name}") for name, part in schema["properties"].items()
    }
    return {
        **schema,
        "properties": {
            name: part if name in required else _or_null(part) for name, part in properties.items()
        },
        "required": list(properties),
        "additionalProperties": False,
    }


def _or_null(schema: JSONSchema) -> JSONSchema:
    variants = schema.get("anyOf", [])
    is_tag = len(schema.get("enum", ())) == 1  # the one value may as well be written
    if is_tag or _NULL in variants or schema == _NULL:
        return schema
    outside = {"description": schema["description"]} if "description" in schema else {}
    inside = {name: value for name, value in schema.items() if name != "description"}
    parts = variants if inside.keys() == {"anyOf"} else [inside]
    return {**outside, "anyOf": [*parts, _NULL]}


def _types_of(values: list[Any]) -> str | list[str]:
    names = sorted({_TYPE_NAMES.get(type(value), "null") for value in values})
    return names[0] if len(names) == 1 else names


def _written(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _inexpressible(path: str, what: str) -> TypeError:
    return TypeError(f"{path}: strict mode cannot express {what}")
