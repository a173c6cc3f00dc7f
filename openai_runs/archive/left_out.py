"""What is not in an archive, and why: found in the objects themselves. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from openai_runs.archive.folders import ThreadLines, parse_object
from openai_runs.types import ACTIVE_STATUSES

__all__ = ["LeftOut", "in_assistant", "in_thread"]

_FILE: Final = "the contents of a file are no part of this API: download it where it is"
_STORE: Final = "a vector store is no part of this API: its files and its index stay where they are"
_TOOL: Final = (
    "its definition and what it answered are here; what it works with stays where it is, and a "
    "server without it cannot call it"
)
_OWN: Final = frozenset({"function"})
"""Tools that are called by the client, wherever the assistant is."""
_IDS: Final = {
    "file_id": ("file", _FILE),
    "file_ids": ("file", _FILE),
    "vector_store_id": ("vector_store", _STORE),
    "vector_store_ids": ("vector_store", _STORE),
}
"""Fields of any object that name something which is no part of it."""


class LeftOut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that is not in the archive."""

    what: str
    """`file`, `vector_store`, `hosted_tool`, `run`, `thread` or `assistants`."""
    id: str
    """Its id; of a tool, its type."""
    why: str
    where: str | None = None
    """Id of the thread or assistant that names it first."""


def in_assistant(raw: bytes) -> list[LeftOut]:
    """Return what the assistant names that is not in the archive."""
    assistant = _decoded(raw)
    where = str(assistant.get("id", ""))
    return [
        LeftOut(what=what, id=key, why=why, where=where) for what, key, why in _named(assistant)
    ]


def in_thread(lines: ThreadLines) -> list[LeftOut]:
    """Return what the thread names that is not in the archive, each once."""
    thread = _decoded(lines.thread)
    where = str(thread.get("id", ""))
    found: dict[tuple[str, str, str], None] = {}
    objects = [lines.thread, *lines.messages]
    for run in lines.runs:
        objects += [run.run, *run.steps]
        facts = _decoded(run.run)
        if facts.get("status") in ACTIVE_STATUSES:
            why = f"the run was {facts['status']} when it was exported, and may have gone on since"
            found["run", str(facts.get("id", "")), why] = None
    for raw in objects:
        found.update(dict.fromkeys(_named(_decoded(raw))))
    return [LeftOut(what=what, id=key, why=why, where=where) for what, key, why in found]


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        return parse_object(raw)
    except ValueError:
        return {}  # it is in the archive as it came, and nothing can be found in it


def _named(value: Any) -> Iterator[tuple[str, str, str]]:
    """Yield what is named at any depth: kind, id, and why it is not here."""
    if isinstance(value, list):
        for item in value:
            yield from _named(item)
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if name in _IDS:
            what, why = _IDS[name]
            ids = inner if isinstance(inner, list) else [inner]
            yield from ((what, one, why) for one in ids if isinstance(one, str) and one)
        elif name == "tools" and isinstance(inner, list):
            kinds = (tool.get("type") for tool in inner if isinstance(tool, dict))
            yield from (
                ("hosted_tool", kind, _TOOL)
                for kind in kinds
                if isinstance(kind, str) and kind not in _OWN
            )
        if name not in {"metadata", "parameters"}:  # the user's own, whatever they are called
            yield from _named(inner)
