"""Threads: the object, and the bodies that make and change one."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from openai_runs.types.base import Answer, Metadata, Request, RequestMetadata, null
from openai_runs.types.messages import CreateMessage
from openai_runs.types.tools import RequestToolResources, ToolResources

__all__ = [
    "CreateThread",
    "Thread",
    "UpdateThread",
]


class Thread(Answer, frozen=True, kw_only=True):
    """A conversation: messages are put on it, runs are started on it."""

    id: str
    object: str = field(default_factory=lambda: "thread")
    created_at: int = field(default_factory=int)
    """Unix seconds."""
    tool_resources: ToolResources | None = null()
    metadata: Metadata | None = null()
    """At most 16 pairs, keys of 64 and values of 512 characters."""


class CreateThread(Request, frozen=True, kw_only=True):
    """Body of POST /threads, and of `thread` in POST /threads/runs."""

    messages: Annotated[list[CreateMessage], Meta(max_length=128)] | None | UnsetType = UNSET
    tool_resources: RequestToolResources | None | UnsetType = UNSET
    metadata: RequestMetadata | None | UnsetType = UNSET


class UpdateThread(Request, frozen=True, kw_only=True):
    """Body of POST /threads/{thread_id}."""

    tool_resources: RequestToolResources | None | UnsetType = UNSET
    metadata: RequestMetadata | None | UnsetType = UNSET
