"""Lenient decoding: strictly first, field by field only where that fails.

The strict decoder is msgspec's own and costs nothing extra. What it rejects is decoded
once more as plain JSON and built by hand, where shapes that known servers send are
converted: float times, `{}` for absent, numbers in metadata, null for a field with a
default, unknown variants and list items. docs/pages/explain/protocol.md
says which servers send them. A known field of a shape that cannot be converted still fails, and the
error names its path.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
from msgspec import NODEFAULT, ValidationError, inspect

from openai_runs._protocol.spec import check_id
from openai_runs.config import MAX_ID_CHARS
from openai_runs.types.base import Answer, Page, Unknown, UnknownItem
from openai_runs.types.deltas import (
    CodeInterpreterLogsDelta,
    FileCitationDelta,
    FunctionToolCallDelta,
    TextContentDelta,
    ToolCallsDelta,
    UnknownAnnotationDelta,
    UnknownContentDelta,
    UnknownOutputDelta,
    UnknownStepDetailsDelta,
    UnknownToolCallDelta,
)
from openai_runs.types.messages import (
    FileCitationAnnotation,
    TextContent,
    UnknownAnnotation,
    UnknownContent,
)
from openai_runs.types.runs import RequiredApproval, RequiredToolCall, Run, UnknownToolCall
from openai_runs.types.steps import (
    CodeInterpreterLogs,
    FunctionToolCall,
    ToolCallsDetails,
    UnknownOutput,
    UnknownStepDetails,
)
from openai_runs.types.tools import (
    FunctionTool,
    ResponseFormatText,
    UnknownResponseFormat,
    UnknownTool,
)

__all__ = ["AnswerDecoder", "decoder_for"]

T = TypeVar("T")

_UNKNOWN: Final[dict[type, type[Unknown]]] = {
    FunctionTool: UnknownTool,
    FunctionToolCall: UnknownToolCall,
    RequiredToolCall: UnknownToolCall,
    RequiredApproval: UnknownToolCall,
    ToolCallsDetails: UnknownStepDetails,
    TextContent: UnknownContent,
    FileCitationAnnotation: UnknownAnnotation,
    CodeInterpreterLogs: UnknownOutput,
    ResponseFormatText: UnknownResponseFormat,
    TextContentDelta: UnknownContentDelta,
    FileCitationDelta: UnknownAnnotationDelta,
    FunctionToolCallDelta: UnknownToolCallDelta,
    ToolCallsDelta: UnknownStepDetailsDelta,
    CodeInterpreterLogsDelta: UnknownOutputDelta,
}
"""One member of each union -> the class for unknown variants of it."""


_CURSORS: Final = frozenset({"first_id", "last_id"})
"""Fields of a page that its items say, too."""
_BOOLS: Final[dict[Any, bool]] = {0: False, 1: True, "false": False, "true": True}


class AnswerDecoder(Generic[T]):
    """Decodes the JSON text of an answer to `T`."""

    def __init__(self, kind: type[T]) -> None:
        """Build the strict decoder; what lenient decoding needs is built when it is needed."""
        self._kind: Any = kind
        self._strict = msgspec.json.Decoder(kind).decode

    def decode(self, text: bytes) -> T:
        """Return the object in `text`.

        Raises:
            msgspec.DecodeError: `text` is no JSON, a known field cannot be converted, or a run has
                an id that no URL can hold.
        """
        try:
            answer = self._strict(text)
        except ValidationError:
            answer = self._decode_leniently(text)
        except (RecursionError, UnicodeDecodeError) as error:
            raise _unreadable(error) from None
        if self._kind is Run:
            run: Any = answer
            both = run.id and run.thread_id and run.id + run.thread_id
            if len(both) > MAX_ID_CHARS or not both.isidentifier():  # nearly all are
                _check_ids(run)
        return answer

    def _decode_leniently(self, text: bytes) -> T:
        try:
            wire = msgspec.json.decode(text)
            return cast("T", _build(wire, _describe(self._kind), "$"))
        except (RecursionError, UnicodeDecodeError) as error:
            raise _unreadable(error) from None


def _check_ids(run: Run) -> None:
    """Check the ids that further requests are made with: they come from no caller."""
    for name, value in (("id", run.id), ("thread_id", run.thread_id)):
        try:
            check_id(name, value)
        except ValueError:
            message = f"Expected an id, got a text that no URL can hold - at `$.{name}`"
            raise ValidationError(message) from None


def _unreadable(error: RecursionError | UnicodeDecodeError) -> msgspec.DecodeError:
    is_deep = isinstance(error, RecursionError)
    return msgspec.DecodeError("JSON is nested too deeply" if is_deep else "JSON is not UTF-8")


_DECODERS: Final[dict[Any, AnswerDecoder[Any]]] = {}


def decoder_for(kind: type[T]) -> AnswerDecoder[T]:
    """Return the one decoder of `kind`."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = AnswerDecoder(kind)
    return decoder


@lru_cache(maxsize=128)
def _describe(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _build(wire: Any, shape: inspect.Type, path: str) -> Any:
    match shape:
        case inspect.StructType():
            return _build_struct(wire, shape, path)
        case inspect.ListType():
            return _build_list(wire, shape, path)
        case inspect.UnionType():
            return _build_union(wire, shape, path)
        case inspect.DictType(value_type=inspect.StrType()) if isinstance(wire, dict):
            return {key: _as_text(value) for key, value in wire.items()}
        case inspect.DictType() if isinstance(wire, dict):
            held = shape.value_type
            return {key: _build(value, held, f"{path}.{key}") for key, value in wire.items()}
        case inspect.BoolType() if isinstance(wire, (int, str)) and wire in _BOOLS:
            return _BOOLS[wire]
        case inspect.IntType() if isinstance(wire, float) and wire == wire and abs(wire) < 1e18:
            return int(wire)
        case _:
            return _convert(wire, shape, path)


_PLAIN: Final[dict[type[inspect.Type], Any]] = {
    inspect.StrType: str,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
    inspect.DictType: dict,
    inspect.AnyType: Any,
}


def _convert(wire: Any, shape: inspect.Type, path: str) -> Any:
    if isinstance(shape, inspect.LiteralType) and wire in shape.values:
        return wire
    if type(shape) not in _PLAIN:  # types of the caller are decoded strictly only
        message = f"Invalid value of type `{type(wire).__name__}` - at `{path}`"
        raise ValidationError(message)
    try:
        return msgspec.convert(wire, _PLAIN[type(shape)])
    except ValidationError as error:
        message = f"{error} - at `{path}`"
        raise ValidationError(message) from None


def _build_struct(wire: Any, shape: inspect.StructType, path: str) -> Any:
    if not isinstance(wire, dict):
        message = f"Expected `object`, got `{type(wire).__name__}` - at `{path}`"
        raise ValidationError(message)
    given: dict[str, Any] = {}
    for part in shape.fields:
        name = part.encode_name
        defaulted = part.default is not NODEFAULT or part.default_factory is not NODEFAULT
        if name in wire and not (wire[name] is None and defaulted and not _nullable(part.type)):
            try:
                given[part.name] = _build(wire[name], part.type, f"{path}.{name}")
            except ValidationError:
                if name not in _CURSORS or getattr(shape.cls, "__origin__", None) is not Page:
                    raise  # else the ids of the items serve as well
        elif not defaulted:
            message = f"Object missing required field `{name}` - at `{path}`"
            raise ValidationError(message)
    return shape.cls(**given)


def _build_list(wire: Any, shape: inspect.ListType, path: str) -> list[Any]:
    if not isinstance(wire, list):
        message = f"Expected `array`, got `{type(wire).__name__}` - at `{path}`"
        raise ValidationError(message)
    return [
        _build_item(item, shape.item_type, f"{path}[{number}]") for number, item in enumerate(wire)
    ]


def _build_item(wire: Any, shape: inspect.Type, path: str) -> Any:
    try:
        return _build(wire, shape, path)
    except ValidationError:
        stand_in = _stand_in(shape)
        if stand_in is None:
            raise
        return stand_in(wire if isinstance(wire, dict) else {"value": wire})


def _stand_in(shape: inspect.Type) -> type[Unknown] | None:
    """Return the class that replaces a value of this shape which cannot be decoded."""
    if isinstance(shape, inspect.StructType) and issubclass(shape.cls, Answer):
        return UnknownItem
    members = shape.types if isinstance(shape, inspect.UnionType) else (shape,)
    for member in members:
        if isinstance(member, inspect.StructType) and member.cls in _UNKNOWN:
            return _UNKNOWN[member.cls]
    return None


def _build_union(wire: Any, shape: inspect.UnionType, path: str) -> Any:
    if wire is None and _nullable(shape):
        return None
    if isinstance(wire, dict):
        return _build_variant(wire, shape, path)
    failure: ValidationError | None = None
    for part in shape.types:
        if isinstance(part, (inspect.StructType, inspect.NoneType)):
            continue  # handled above
        try:
            return _build(wire, part, path)
        except ValidationError as error:
            failure = error
    message = f"Expected another shape, got `{type(wire).__name__}` - at `{path}`"
    raise failure or ValidationError(message)


def _build_variant(wire: dict[str, Any], shape: inspect.UnionType, path: str) -> Any:
    structs = [part for part in shape.types if isinstance(part, inspect.StructType)]
    tagged = [part for part in structs if part.tag is not None]
    if tagged:
        for part in tagged:
            if wire.get(part.tag_field or "type") == part.tag:
                return _build(wire, part, path)
        if not wire and _nullable(shape):
            return None
        stand_in = _stand_in(shape)
        if stand_in is None:
            message = f"Invalid value {wire.get('type')!r} - at `{path}.type`"
            raise ValidationError(message)
        return stand_in(wire)
    for part in structs:
        try:
            return _build(wire, part, path)
        except ValidationError:
            if wire or not _nullable(shape):
                raise
            return None  # `{}` where null was meant
    maps = [part for part in shape.types if isinstance(part, inspect.DictType)]
    if maps:
        return _build(wire, maps[0], path)
    message = f"Expected another shape, got `object` - at `{path}`"
    raise ValidationError(message)


def _nullable(shape: inspect.Type) -> bool:
    if isinstance(shape, inspect.UnionType):
        return any(isinstance(part, inspect.NoneType) for part in shape.types)
    return isinstance(shape, (inspect.NoneType, inspect.AnyType))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
