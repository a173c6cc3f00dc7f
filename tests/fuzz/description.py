"""The facts of the vendor's OpenAPI description, written as a description again.

With links from each create to what takes its id, so that requests follow each other.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tests.openapi import OPERATIONS, SCHEMAS, Operation

__all__ = ["described"]

_QUERY: dict[str, Any] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 100},
    "order": {"type": "string", "enum": ["asc", "desc"]},
    "include[]": {
        "type": "array",
        "items": {"enum": ["step_details.tool_calls[*].file_search.results[*].content"]},
    },
}
"""Schema of each parameter that is not any string; the bounds of `limit` are prose there."""
_MAKES = {
    "createAssistant": {"assistant_id": "$response.body#/id"},
    "createThread": {"thread_id": "$response.body#/id"},
    "createMessage": {
        "thread_id": "$response.body#/thread_id",
        "message_id": "$response.body#/id",
    },
    "createRun": {"thread_id": "$response.body#/thread_id", "run_id": "$response.body#/id"},
    "createThreadAndRun": {
        "thread_id": "$response.body#/thread_id",
        "run_id": "$response.body#/id",
    },
    "listRunSteps": {
        "thread_id": "$request.path.thread_id",
        "run_id": "$request.path.run_id",
        "step_id": "$response.body#/data/0/id",
    },
}
"""Operation -> what its answer names, by the parameter of other paths."""


def _names(path: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", path)


def _links(operation: str) -> dict[str, Any]:
    """Return the operations whose paths can be made of what this one answers."""
    made = _MAKES.get(operation, {})
    return {
        one.operation: {
            "operationId": one.operation,
            "parameters": {name: made[name] for name in _names(one.path)},
        }
        for one in OPERATIONS.values()
        if (named := set(_names(one.path))) and named <= made.keys()
    }


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _described(one: Operation) -> dict[str, Any]:
    paths = [(name, "path", {"type": "string", "minLength": 1}) for name in _names(one.path)]
    queries = [(name, "query", _QUERY.get(name, {"type": "string"})) for name in one.query]
    found = {"description": "", "content": _content(one.answer), "links": _links(one.operation)}
    described: dict[str, Any] = {
        "operationId": one.operation,
        "parameters": [
            {"name": name, "in": place, "required": place == "path", "schema": schema}
            for name, place, schema in [*paths, *queries]
        ],
        "responses": {
            "200": found,
            "4XX": {"description": "", "content": _content("ErrorResponse")},
        },
    }
    if one.body:
        described["requestBody"] = {"required": True, "content": _content(one.body)}
    return described


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for one in OPERATIONS.values():
        paths.setdefault(one.path, {})[one.method.lower()] = _described(one)
    return paths


_DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Assistants", "version": "2"},
    "paths": _paths(),
    "components": {"schemas": SCHEMAS},
}
"""An OpenAPI 3.1 document."""


@cache
def described() -> Any:
    """Return the same, as what makes requests."""
    import schemathesis  # takes longer to load than the tests of most files to run

    return schemathesis.openapi.from_dict(_DESCRIPTION)
