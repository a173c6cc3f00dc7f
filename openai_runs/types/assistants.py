"""Assistants: the object, and the bodies that make and change one."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from openai_runs.types.base import Answer, Metadata, Request, RequestMetadata, null
from openai_runs.types.runs import ReasoningEffort
from openai_runs.types.tools import (
    RequestResponseFormat,
    RequestTool,
    RequestToolResources,
    ResponseFormat,
    Tool,
    ToolResources,
)

__all__ = [
    "Assistant",
    "CreateAssistant",
    "UpdateAssistant",
]


class Assistant(Answer, frozen=True, kw_only=True):
    """A model with instructions and tools, ready to be run on threads."""

    id: str
    object: str = field(default_factory=lambda: "assistant")
    created_at: int = field(default_factory=int)
    """Unix seconds."""
    name: str | None = null()
    """At most 256 characters."""
    description: str | None = null()
    """At most 512 characters."""
    model: str = field(default_factory=str)
    instructions: str | None = null()
    """At most 256,000 characters."""
    tools: list[Tool] = field(default_factory=lambda: [])  # always written
    """At most 128."""
    tool_resources: ToolResources | None = null()
    metadata: Metadata | None = null()
    """At most 16 pairs, keys of 64 and values of 512 characters."""
    temperature: float | None = null()
    """From 0 to 2."""
    top_p: float | None = null()
    """From 0 to 1."""
    response_format: ResponseFormat | None = null()
    reasoning_effort: str | None = None
    file_ids: list[str] | None = None
    """v1 only."""


class UpdateAssistant(Request, frozen=True, kw_only=True):
    """Body of POST /assistants/{assistant_id}."""

    model: str | UnsetType = UNSET
    reasoning_effort: ReasoningEffort | None | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=256)] | None | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=512)] | None | UnsetType = UNSET
    instructions: Annotated[str, Meta(max_length=256_000)] | None | UnsetType = UNSET
    tools: Annotated[list[RequestTool], Meta(max_length=128)] | UnsetType = UNSET
    tool_resources: RequestToolResources | None | UnsetType = UNSET
    metadata: RequestMetadata | None | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=2)] | None | UnsetType = UNSET
    top_p: Annotated[float, Meta(ge=0, le=1)] | None | UnsetType = UNSET
    response_format: RequestResponseFormat | None | UnsetType = UNSET


class CreateAssistant(UpdateAssistant, frozen=True, kw_only=True):
    """Body of POST /assistants."""

    model: str
