"""What is sent by code for other servers, and for version 1 of the API. Pure.

What says nothing is dropped, and what is refused is explained: by what to write now, or by what is
here instead. What may not live here: what the API has; that is in the types and the routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from openai_runs.config import ASSISTANTS_VERSION
from openai_runs.server.api_errors import Refusal, invalid
from openai_runs.types.messages import CreateMessage, UpdateMessage
from openai_runs.types.runs import CreateRun

__all__ = ["check_version", "drop_empty", "explain", "may_be_empty", "unknown_path"]

_EMPTY: Final = "tool_resources"
_CURRENT: Final = [f"assistants={ASSISTANTS_VERSION}"]
_THIS: Final = f"This server has version {ASSISTANTS_VERSION[1:]} of the Assistants API"
_SEARCH: Final = 'write `{"type": "file_search"}` in place of `{"type": "retrieval"}`'
_ATTACHMENTS: Final = (
    "write `attachments` in place of `file_ids`, such as "
    '`[{"file_id": "file_1", "tools": [{"type": "file_search"}]}]`'
)
_TOOL_RESOURCES: Final = (
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
_WRITE_NOW: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("type", ("'retrieval'",), _SEARCH),
    ("role", ("'system'", "'developer'"), _INSTRUCTIONS),
    ("role", ("'tool'", "'function'"), _OUTPUTS),
    ("file_ids", ("Unknown",), _TOOL_RESOURCES),
)
"""A refused field, what its refusal may say, and what to write now; the first fit counts."""

_HERE: Final = "It has assistants, threads, messages, runs and steps, and lists its models"
_MODEL: Final = f"{_HERE}: start a run, or ask the model's own endpoint"
_FILES: Final = f"{_HERE}: send text in messages, and images by their URL"
_OFFERED: Final = frozenset({"assistants", "threads", "models"})
_ELSEWHERE: Final[dict[str, tuple[str, str]]] = {
    "audio": ("audio", _HERE),
    "batches": ("batches", _HERE),
    "chat": ("chat completions", _MODEL),
    "completions": ("completions", _MODEL),
    "containers": ("containers", _HERE),
    "conversations": ("conversations", f"{_HERE}: threads are what it has in their place"),
    "embeddings": ("embeddings", f"{_HERE}: ask the model's own endpoint"),
    "engines": ("engines", f"{_HERE} under /v1/models"),
    "evals": ("evals", _HERE),
    "files": ("files", _FILES),
    "fine-tunes": ("fine-tuning", _HERE),
    "fine_tuning": ("fine-tuning", _HERE),
    "images": ("images", _HERE),
    "moderations": ("moderations", _HERE),
    "organization": ("organizations", _HERE),
    "realtime": ("realtime sessions", _HERE),
    "responses": ("responses", f"{_HERE}: runs are what it has in their place"),
    "uploads": ("uploads", _FILES),
    "vector_stores": ("vector stores", _FILES),
    "videos": ("videos", _HERE),
}
"""First part of a path below `/v1`, what it is called, and what is here."""
_KNOWN: Final = _ELSEWHERE.keys() | _OFFERED
_NO_FILES: Final = (
    "It has version 2 of the Assistants API: write `tool_resources` of an assistant or a thread, "
    "or `attachments` of a message"
)


def check_version(headers: Iterable[str]) -> None:
    """Refuse a request that asks for another version of the API by its `OpenAI-Beta` headers.

    >>> check_version(["realtime=v1", "assistants=v2"])

    Raises:
        Refusal: It asks for another version, and not for this one as well.
    """
    if list(headers) == _CURRENT:  # as nearly all requests say
        return
    parts = (part.partition("=") for header in headers for part in header.lower().split(","))
    named = (version.strip() for name, _, version in parts if name.strip() == "assistants")
    asked = list(filter(None, named))
    if not asked or ASSISTANTS_VERSION in asked:
        return
    message = (
        f"{_THIS}, and the request asks for '{asked[0][:20]}'. Send the header `OpenAI-Beta: "
        f"assistants={ASSISTANTS_VERSION}`. What was different in version 1: {_SEARCH}; in "
        f"messages, {_ATTACHMENTS}; else, {_TOOL_RESOURCES}."
    )
    raise Refusal(message, param="OpenAI-Beta", code="invalid_beta")


def explain(kind: type, refusal: Refusal) -> Refusal:
    """Return the refusal of a body, with what to write now if it is of version 1 or of chats."""
    path = refusal.param or ""
    for field, words, now in _WRITE_NOW:
        if path.rpartition(".")[2] == field and any(word in refusal.message for word in words):
            in_message = issubclass(kind, CreateMessage | UpdateMessage) or "messages[" in path
            write = _ATTACHMENTS if field == "file_ids" and in_message else now
            return invalid(f"{refusal.message} {_THIS}: {write}.", refusal.param)
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


def unknown_path(method: str, path: str) -> Refusal:
    """Return the 404 for a path that is not served: by its name where it is one of the API's.

    >>> unknown_path("GET", "/v1/files/file_1").message[:60]
    'This server does not offer files (GET /v1/files/file_1). It '
    >>> unknown_path("POST", "/openai/threads").message
    'Invalid URL (POST /openai/threads): is the path /v1 missing? End the base URL in /v1.'
    >>> unknown_path("POST", "/v1/nothing").message
    'Invalid URL (POST /v1/nothing)'
    """
    where = f"{method} {path}"
    parts = path.strip("/").split("/")
    if "v1" in parts:
        at = len(parts) - parts[::-1].index("v1")
    else:
        at = next((at for at, part in enumerate(parts) if part in _KNOWN), 0)
    before, below = parts[:at], parts[at:]
    noun, here = _ELSEWHERE.get(below[0] if below else "", ("", ""))
    if _is_v1_files(below):
        noun, here = "files of assistants and messages", _NO_FILES
    if noun:
        message = f"This server does not offer {noun} ({where}). {here}."
        return Refusal(message, status_code=404, code="not_offered")
    message = f"Invalid URL ({where})"
    misplaced = "v1" not in before or "openai" in before or before.count("v1") > 1
    if below and below[0] in _OFFERED and misplaced:
        message += (
            ": the operations are under /v1, so end the base URL in /v1."
            if "v1" in before
            else ": is the path /v1 missing? End the base URL in /v1."
        )
    return Refusal(message, status_code=404, code="unknown_url")


def _is_v1_files(parts: list[str]) -> bool:
    """Return whether these are files of an assistant or a message, as version 1 had them.

    >>> _is_v1_files(["threads", "thread_1", "messages", "msg_1", "files", "file_1"])
    True
    """
    after = {"assistants": ["files"], "threads": ["messages"]}.get(parts[0]) if parts else None
    found = parts[2:3]
    return bool(found) and found == after and (found == ["files"] or parts[4:5] == ["files"])
