"""A full body of each kind, and small changes to it: what a decoder must agree about.

Nothing here knows our types. `variations` changes one place at a time: keys are left out
or added, values replaced by null, other kinds, neighbours of every bound, and each word
that any enum of the description holds.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

from tests.openapi import SCHEMAS

__all__ = ["FULL", "variations"]

RESOURCES: dict[str, Any] = {
    "code_interpreter": {"file_ids": ["file-1"]},
    "file_search": {"vector_store_ids": ["vs_1"]},
}
STORES: dict[str, Any] = {
    "file_search": {
        "vector_stores": [
            {
                "file_ids": ["file-1"],
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400},
                },
                "metadata": {"a": "b"},
            }
        ]
    },
}
TOOLS: list[Any] = [
    {"type": "code_interpreter"},
    {
        "type": "file_search",
        "file_search": {
            "max_num_results": 20,
            "ranking_options": {"ranker": "auto", "score_threshold": 0.5},
        },
    },
    {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {}, "strict": True},
    },
]
JSON_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": True},
}
MESSAGE: dict[str, Any] = {
    "role": "user",
    "content": [
        {"type": "text", "text": "Hi"},
        {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "auto"}},
        {
            "type": "image_url",
            "image_url": {"url": "https://example.invalid/a.png", "detail": "low"},
        },
    ],
    "attachments": [
        {"file_id": "file-1", "tools": [{"type": "code_interpreter"}, {"type": "file_search"}]}
    ],
    "metadata": {"a": "b"},
}
ASSISTANT: dict[str, Any] = {
    "model": "gpt-4o",
    "reasoning_effort": "low",
    "name": "n",
    "description": "d",
    "instructions": "i",
    "tools": TOOLS,
    "tool_resources": RESOURCES,
    "metadata": {"a": "b"},
    "temperature": 1.0,
    "top_p": 0.5,
    "response_format": JSON_SCHEMA,
}
RUN: dict[str, Any] = {
    "assistant_id": "asst_1",
    "model": "gpt-4o",
    "instructions": "i",
    "tools": TOOLS,
    "metadata": {"a": "b"},
    "temperature": 1.0,
    "top_p": 0.5,
    "stream": False,
    "max_prompt_tokens": 1000,
    "max_completion_tokens": 1000,
    "truncation_strategy": {"type": "last_messages", "last_messages": 10},
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": True,
    "response_format": {"type": "json_object"},
}
THREAD: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hi"}],
    "tool_resources": STORES,
    "metadata": {"a": "b"},
}

FULL: dict[str, dict[str, Any]] = {
    "CreateAssistantRequest": {**ASSISTANT, "tool_resources": STORES},
    "ModifyAssistantRequest": ASSISTANT,
    "CreateThreadRequest": THREAD,
    "ModifyThreadRequest": {"tool_resources": RESOURCES, "metadata": {"a": "b"}},
    "CreateMessageRequest": MESSAGE,
    "ModifyMessageRequest": {"metadata": {"a": "b"}},
    "CreateRunRequest": {
        **RUN,
        "reasoning_effort": "max",
        "additional_instructions": "i",
        "additional_messages": [MESSAGE],
    },
    "CreateThreadAndRunRequest": {**RUN, "thread": THREAD, "tool_resources": RESOURCES},
    "ModifyRunRequest": {"metadata": {"a": "b"}},
    "SubmitToolOutputsRunRequest": {
        "tool_outputs": [{"tool_call_id": "call_1", "output": "4"}],
        "stream": False,
    },
}
"""By schema name: a valid body that has every key."""

INTEGERS = [-1, 0, 1, 2, 50, 51, 99, 100, 255, 256, 4096, 4097]
FLOATS = [-0.01, 0.0, 1.0, 1.01, 2.0, 2.01]
LENGTHS = [0, 1, 64, 65, 256, 257, 512, 513, 256_000, 256_001]
SIZES = [0, 1, 2, 16, 17, 20, 21, 128, 129]
OTHER_KINDS: list[Any] = [None, True, 7, 0.5, "no such word", [], {}, ["x"], {"x": "y"}]


def words(schema: Any) -> set[str]:
    """Return every word that stands in an enum, names of models, objects and events apart."""
    if isinstance(schema, dict):
        own = {word for word in schema.get("enum", []) if not re.search(r"^(gpt|o\d)|[.\[]", word)}
        return own.union(*(words(part) for part in schema.values()))
    if isinstance(schema, list):
        return set().union(*(words(part) for part in schema))
    return set()


WORDS = sorted(words(SCHEMAS))


def replacements(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what may stand in the place of `value`, with a label."""
    yield from ((f"= {other!r}", other) for other in OTHER_KINDS)
    match value:
        case bool():
            pass
        case int():
            yield from ((f"= {number}", number) for number in INTEGERS)
        case float():
            yield from ((f"= {number}", number) for number in FLOATS)
        case str():
            if value in WORDS:  # elsewhere each is like any other text
                yield from ((f"= {word!r}", word) for word in WORDS)
            yield from ((f"{length} characters", "x" * length) for length in LENGTHS)
        case list():
            yield from ((f"{size} items", [value[0]] * size) for size in SIZES)
        case dict():
            yield "with another key", {**value, "no_such_key": 1}
            yield from ((f"{size} keys", {f"k{n}": "v" for n in range(size)}) for size in (16, 17))
            yield from ((f"key of {n}", {"k" * n: "v"}) for n in (64, 65))


def changes(value: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Yield (path, what was changed, the changed value) for this value and all inside it."""
    yield from ((path, label, other) for label, other in replacements(value))
    if isinstance(value, dict):
        for name, inner in value.items():
            rest = {key: kept for key, kept in value.items() if key != name}
            yield f"{path}.{name}", "left out", rest
            for where, label, other in changes(inner, f"{path}.{name}"):
                yield where, label, {**value, name: other}
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            for where, label, other in changes(inner, f"{path}[{number}]"):
                yield where, label, [*value[:number], other, *value[number + 1 :]]


def variations(schema: str) -> Iterator[tuple[str, str, Any]]:
    """Yield (path, what was changed, body) for each single change to the full body."""
    yield "$", "full", copy.deepcopy(FULL[schema])
    yield from changes(FULL[schema], "$")
