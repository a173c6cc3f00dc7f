"""The pieces of a stream have every field of the OpenAPI description, and none made up."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from openai_runs.types import (
    ContentDelta,
    MessageDelta,
    MessageDeltaBody,
    RefusalContentDelta,
    RunStepDelta,
    TextContentDelta,
    TextDelta,
)
from tests.openapi import SCHEMAS


def followed(schema: Any) -> Any:
    """Return the schema that a reference names, or that stands beside null."""
    choices = [part for part in schema.get("anyOf", []) if part != {"type": "null"}]
    if "$ref" in schema:
        return followed(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    return followed(choices[0]) if len(choices) == 1 else schema


def members(shape: inspect.Type) -> list[inspect.Type]:
    """Return the members of a union but null; the type itself if it is none."""
    parts = shape.types if isinstance(shape, inspect.UnionType) else (shape,)
    return [part for part in parts if not isinstance(part, inspect.NoneType)]


def pairs(shape: inspect.Type, schema: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, our Struct, its schema) for every object within, at any depth."""
    schema = followed(schema)
    for part in members(shape):
        if isinstance(part, inspect.ListType):
            yield from pairs(part.item_type, schema["items"], f"{path}[]")
        elif isinstance(part, inspect.StructType):
            variant = variant_of(part, schema)
            name = path if part.tag is None else f"{path}({part.tag})"
            yield name, part, variant
            for field in part.fields:
                inner = variant["properties"].get(field.encode_name)
                if inner is not None:
                    yield from pairs(field.type, inner, f"{name}.{field.encode_name}")


def variant_of(part: inspect.StructType, schema: Any) -> Any:
    """Return the one of several schemas that has the Struct's tag."""
    for choice in map(followed, schema.get("oneOf", [])):
        if choice["properties"]["type"]["enum"] == [part.tag]:
            return choice
    return schema


FOUND = [
    *pairs(inspect.type_info(MessageDelta), SCHEMAS["MessageDeltaObject"], "MessageDelta"),
    *pairs(inspect.type_info(RunStepDelta), SCHEMAS["RunStepDeltaObject"], "RunStepDelta"),
]


@pytest.mark.parametrize(("path", "ours", "schema"), FOUND, ids=[row[0] for row in FOUND])
def test_pieces_have_the_described_fields(path: str, ours: inspect.StructType, schema: Any) -> None:
    """No field is missing, none is made up; the tag is the described `type`."""
    names = {field.encode_name for field in ours.fields} | ({"type"} if ours.tag else set())

    assert names == set(schema["properties"])


@pytest.mark.parametrize(("path", "ours", "schema"), FOUND, ids=[row[0] for row in FOUND])
def test_pieces_need_no_more_than_is_described(
    path: str, ours: inspect.StructType, schema: Any
) -> None:
    """What servers may leave out, we can do without; a place in a list they may not."""
    needed = {field.encode_name for field in ours.fields if field.required}

    assert needed <= set(schema.get("required", [])) | EXCEPTED.get(path, set())
    assert ("index" in needed) == ("index" in schema["properties"])


EXCEPTED = {"RunStepDelta.delta.step_details(message_creation).message_creation": {"message_id"}}
"""A piece that names no message says nothing, and is read as null."""


def test_every_variant_is_found() -> None:
    """The walk above meets all kinds of parts, annotations, calls and outputs."""
    kinds = {ours.tag for _, ours, _ in FOUND} - {None}

    assert kinds == {
        *("text", "image_file", "image_url", "refusal"),
        *("file_citation", "file_path"),
        *("message_creation", "tool_calls"),
        *("function", "code_interpreter", "file_search"),
        *("logs", "image"),
    }


def test_text_of_a_delta_is_the_new_text_of_all_parts() -> None:
    """Parts without text, or of another kind, add none."""
    parts: list[ContentDelta] = [
        TextContentDelta(index=0, text=TextDelta(value="Hel")),
        RefusalContentDelta(index=1, refusal="No"),
        TextContentDelta(index=2),
        TextContentDelta(index=3, text=TextDelta()),
        TextContentDelta(index=4, text=TextDelta(value="lo")),
    ]

    assert MessageDelta(id="msg_1", delta=MessageDeltaBody(content=parts)).text == "Hello"
    assert MessageDelta(id="msg_1", delta=MessageDeltaBody()).text == ""


def test_delta_is_written_as_it_is_described() -> None:
    """What was not said is left out; the index of the first part is not."""
    part = TextContentDelta(index=0, text=TextDelta(value="Hi"))
    delta = MessageDelta(id="msg_1", delta=MessageDeltaBody(content=[part]))

    assert msgspec.to_builtins(delta) == {
        "id": "msg_1",
        "object": "thread.message.delta",
        "delta": {"content": [{"type": "text", "index": 0, "text": {"value": "Hi"}}]},
    }
