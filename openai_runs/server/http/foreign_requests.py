"""What other clients send: what says nothing is dropped, what is of version 1 is explained. Pure.

What may not live here: what this API's own clients send; that is in the types of the bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from openai_runs.config import ASSISTANTS_VERSION
from openai_runs.server.api_errors import Refusal, invalid
from openai_runs.types.messages import CreateMessage, UpdateMessage
from openai_runs.types.runs import CreateRun

__all__ = ["check_version", "drop_empty", "explain", "may_be_empty"]

_EMPTY: Final = "tool_resources"
_THIS: Final = f"This server has version {ASSISTANTS_VERSION[1:]} of the Assistants API"
_VERSION: Final = re.compile(r"\s*assistants\s*=\s*v?([A-Za-z0-9.-]{1,20})\s*\Z", re.IGNORECASE)
_SEARCH: Final = 'write `{"type": "file_search"}` in place of `{"type": "retrieval"}`'
_ATTACHMENTS: Final = (
    "write `attachments` in place of `file_ids`, such as "
    '`[{"file_id": "file_1", "tools": [{"type": "file_search"}]}]`'
)
_RESOURCES: Final = (
    "write `tool_resources` in place of `file_ids`, on an assistant or a thread, such as "
    '`{"code_interpreter": {"file_ids": ["file_1"]}}`'
)
_INSTRUCTIONS: Final = (
    "write `instructions` of the assistant or the run, or `additional_instructions` of the run, in "
    "place of such a message"
)
_OUTPUTS: Final = (
    "send the outputs of tools to `/threads/{thread_id}/runs/{run_id}/submit_tool_outputs`"
)
_NOW: Final[tuple[tuple[str, str, str], ...]] = (
    (r"(.*\.)?type", "'retrieval'", _SEARCH),
    (r"(.*messages\[\d+\]\.)file_ids", "", _ATTACHMENTS),
    (r"(.*\.)?file_ids", "Unknown", _RESOURCES),
    (r"(.*\.)?role", "'(system|developer)'", _INSTRUCTIONS),
    (r"(.*\.)?role", "'(tool|function)'", _OUTPUTS),
)
"""Path of a refused field, what its refusal says, and what to write now; the first fit counts."""


def check_version(headers: Iterable[str]) -> None:
    """Refuse a request that asks for another version of the API by its `OpenAI-Beta` headers.

    >>> check_version(["realtime=v1", "assistants=v2"])

    Raises:
        Refusal: It asks for another version, and not for this one as well.
    """
    parts = (part for header in headers for part in header.split(","))
    asked = [found[1] for part in parts if (found := _VERSION.match(part))]
    if not asked or ASSISTANTS_VERSION[1:] in asked:
        return
    message = (
        f"{_THIS}, and the request asks for version {asked[0]}. Send the header `OpenAI-Beta: "
        f"assistants={ASSISTANTS_VERSION}`. What was different in version 1: {_SEARCH}; in "
        f"messages, {_ATTACHMENTS}; else, {_RESOURCES}."
    )
    raise Refusal(message, param="OpenAI-Beta", code="invalid_beta")


def explain(kind: type, refusal: Refusal) -> Refusal:
    """Return the refusal of a body, with what to write now if it is of version 1 or of chats."""
    path = refusal.param or ""
    if issubclass(kind, CreateMessage | UpdateMessage):
        path = f"messages[0].{path}"
    for field, words, now in _NOW:
        if re.fullmatch(field, path) and re.search(words, refusal.message):
            return invalid(f"{refusal.message} {_THIS}: {now}.", refusal.param)
    return refusal


def may_be_empty(kind: type, param: str | None) -> bool:
    """Return whether what was refused may say nothing: azure-ai-agents sends `{}` with each run."""
    return param == _EMPTY and issubclass(kind, CreateRun)


def drop_empty(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a run without its `tool_resources`, which name nothing.

    Raises:
        Refusal: They name something, which a run cannot have.
    """
    if not _is_empty(body[_EMPTY]):
        message = f"Unknown parameter: '{_EMPTY}'. Write it on the assistant or on the thread."
        raise invalid(message, _EMPTY)
    return {name: value for name, value in body.items() if name != _EMPTY}


def _is_empty(value: Any, depth: int = 2) -> bool:
    """Return whether nothing is in it, nor in objects in it to this depth.

    >>> _is_empty({"file_search": {"vector_store_ids": []}, "code_interpreter": None})
    True
    """
    if isinstance(value, dict) and depth:
        return all(_is_empty(item, depth - 1) for item in value.values())
    return value in (None, [], {})
