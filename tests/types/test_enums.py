"""The words of the API, as constants and in types, are those of the OpenAPI description."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import inspect

from openai_runs.types import (
    Assistant,
    Message,
    MessageRole,
    RequiredActionType,
    Run,
    RunErrorCode,
    RunStatus,
    RunStep,
    RunStepStatus,
    RunStepType,
    SortOrder,
)
from tests.openapi import SCHEMAS

RUN, STEP = SCHEMAS["RunObject"]["properties"], SCHEMAS["RunStepObject"]["properties"]
ACTION = RUN["required_action"]["anyOf"][0]["properties"]["type"]
CODE = RUN["last_error"]["anyOf"][0]["properties"]["code"]


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        (RunStatus, RUN["status"]["enum"]),
        (RunErrorCode, CODE["enum"]),
        (RequiredActionType, ACTION["enum"]),
        (RunStepStatus, STEP["status"]["enum"]),
        (RunStepType, STEP["type"]["enum"]),
        (MessageRole, SCHEMAS["MessageObject"]["properties"]["role"]["enum"]),
        (SortOrder, ["asc", "desc"]),
    ],
)
def test_constants_are_the_described_words(constants: Any, words: list[str]) -> None:
    """No word is missing, none is made up."""
    assert {value for name, value in vars(constants).items() if name.isupper()} == set(words)


def resolved(schema: Any) -> Any:
    """Follow references, and take what stands beside null or alone in an allOf."""
    while True:
        choices = [part for part in schema.get("anyOf", []) if part != {"type": "null"}]
        if "$ref" in schema:
            schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
        elif len(choices) == 1:
            schema = choices[0]
        elif len(schema.get("allOf", [])) == 1:
            schema = schema["allOf"][0]
        else:
            return schema


def words(shape: inspect.Type, schema: Any, path: str) -> Iterator[tuple[str, set[Any], set[Any]]]:
    """Yield (path, our literals, the described enum) wherever we have literals."""
    schema = resolved(schema)
    parts = shape.types if isinstance(shape, inspect.UnionType) else (shape,)
    described = {word for one in (schema, *schema.get("oneOf", [])) for word in one.get("enum", [])}
    for part in parts:
        if isinstance(part, inspect.LiteralType):
            yield path, set(part.values), described
        elif isinstance(part, inspect.StructType) and "properties" in schema:
            for field in part.fields:
                if inner := schema["properties"].get(field.encode_name):
                    yield from words(field.type, inner, f"{path}.{field.encode_name}")


FOUND = [
    found
    for kind, name in (
        (Run, "RunObject"),
        (RunStep, "RunStepObject"),
        (Message, "MessageObject"),
        (Assistant, "AssistantObject"),
    )
    for found in words(inspect.type_info(kind), SCHEMAS[name], name)
]

WIDER = {"RunStepObject.last_error.code": {"invalid_prompt"}}
"""A step's error has the type of a run's, which knows one code more (OpenAPI: RunObject)."""


@pytest.mark.parametrize(("path", "ours", "described"), FOUND, ids=[row[0] for row in FOUND])
def test_literals_are_the_described_words(path: str, ours: set[str], described: set[str]) -> None:
    """What an editor offers is what the API answers."""
    assert ours - WIDER.get(path, set()) == described


def test_literals_are_found() -> None:
    """The walk above sees the open enums of all four objects."""
    paths = {path for path, _, _ in FOUND}

    assert paths >= {
        "RunObject.status",
        "RunObject.last_error.code",
        "RunObject.incomplete_details.reason",
        "RunObject.truncation_strategy.type",
        "RunObject.tool_choice",
        "RunStepObject.status",
        "RunStepObject.type",
        "MessageObject.status",
        "MessageObject.role",
        "MessageObject.incomplete_details.reason",
    }
