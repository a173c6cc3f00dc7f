"""From request bodies to the objects they ask for. Pure, but for the chance in an id.

What may not live here: how an object changes later (`transitions`), and where it is kept.
"""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from openai_runs.config import MAX_TOOLS_BYTES
from openai_runs.server.api_errors import invalid
from openai_runs.server.objects.hosted_tools import HostedTools, check_hosted
from openai_runs.types.assistants import Assistant, CreateAssistant, UpdateAssistant
from openai_runs.types.messages import (
    Attachment,
    Content,
    CreateMessage,
    ImageFile,
    ImageFileContent,
    ImageURL,
    ImageURLContent,
    Message,
    RequestContent,
    RequestImageFileContent,
    RequestTextContent,
    Text,
    TextContent,
    UpdateMessage,
)
from openai_runs.types.runs import CreateRun, CreateThreadAndRun, Run, UpdateRun
from openai_runs.types.threads import CreateThread, Thread, UpdateThread
from openai_runs.types.tools import (
    FunctionTool,
    NamedToolChoice,
    RequestToolResources,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolResources,
    TruncationStrategy,
)

__all__ = [
    "NewRun",
    "assistant_changes",
    "build_assistant",
    "build_message",
    "build_new_run",
    "build_run",
    "build_thread",
    "given",
    "metadata_changes",
    "new_id",
    "text_content",
    "thread_changes",
]

T = TypeVar("T")

_LETTERS: Final = (string.ascii_letters + string.digits).encode()
_ID_CHARS: Final = 24
"""Letters and digits after the prefix; as in the vendor's ids."""
_FAIR: Final = 256 // len(_LETTERS) * len(_LETTERS)
"""Bytes from here on are thrown away, or some letters would come more often than others."""
_TO_LETTERS: Final = bytes(_LETTERS[byte % len(_LETTERS)] for byte in range(256))
_DRAWN_BYTES: Final = 4096
"""Random bytes read from the system at once; each call costs a switch of threads."""

_drawn: Final[list[str]] = []
os.register_at_fork(after_in_child=_drawn.clear)  # two processes never give the same id


def new_id(prefix: str) -> str:
    """Return an id nobody can guess."""
    while True:
        try:
            return f"{prefix}_{_drawn.pop()}"  # which no two threads do at once
        except IndexError:
            _draw()


def _draw() -> None:
    chance = os.urandom(_DRAWN_BYTES).translate(_TO_LETTERS, bytes(range(_FAIR, 256))).decode()
    ends = range(_ID_CHARS, len(chance) + 1, _ID_CHARS)
    _drawn.extend(chance[end - _ID_CHARS : end] for end in ends)


def given(*values: T | None | UnsetType) -> T | None:
    """Return the first value that was sent and is not null.

    >>> given(msgspec.UNSET, None, 3)
    3
    """
    for value in values:
        if value is not None and not isinstance(value, UnsetType):
            return value
    return None


def _as(kind: Any, sent: Any) -> Any:
    """Return what was sent as the type it is answered as."""
    return msgspec.convert(msgspec.to_builtins(sent), kind)


def _tools(sent: Sequence[Any] | None) -> list[Tool]:
    tools: list[Tool] = _as(list[Tool], sent or [])
    _bound("tools", tools)
    return tools


def _bound(param: str, value: Any) -> None:
    """Refuse what every run would show, and which is too large for that.

    Raises:
        Refusal: It is.
    """
    size = len(msgspec.json.encode(value))
    if size > MAX_TOOLS_BYTES:
        message = f"Invalid '{param}': {size} bytes of JSON, of at most {MAX_TOOLS_BYTES}."
        raise invalid(message, param)


def build_assistant(body: CreateAssistant, now: int) -> Assistant:
    """Return the assistant that `body` describes.

    Raises:
        Refusal: It names no model, or is too large.
    """
    if not body.model:
        message = "Missing required parameter: 'model'."
        raise invalid(message, "model")
    return Assistant(
        id=new_id("asst"),
        created_at=now,
        name=given(body.name),
        description=given(body.description),
        model=body.model,
        instructions=given(body.instructions),
        tools=_tools(given(body.tools)),
        tool_resources=_resources(body.tool_resources),
        metadata=given(body.metadata) or {},
        temperature=_number(1.0, body.temperature),
        top_p=_number(1.0, body.top_p),
        response_format=_format(body.response_format),
        reasoning_effort=given(body.reasoning_effort),
    )


def assistant_changes(body: UpdateAssistant) -> dict[str, Any]:
    """Return the fields of the assistant that `body` changes; null sets the default.

    An empty model changes nothing: go-openai sends one whenever none was set.
    """
    values: dict[str, Any] = {
        "model": body.model or UNSET,
        "name": body.name,
        "description": body.description,
        "instructions": body.instructions,
        "reasoning_effort": body.reasoning_effort,
        "tools": UNSET if body.tools is UNSET else _tools(body.tools),
        "tool_resources": UNSET
        if body.tool_resources is UNSET
        else _resources(body.tool_resources),
        "metadata": UNSET if body.metadata is UNSET else body.metadata or {},
        "temperature": UNSET if body.temperature is UNSET else _number(1.0, body.temperature),
        "top_p": UNSET if body.top_p is UNSET else _number(1.0, body.top_p),
        "response_format": (
            UNSET if body.response_format is UNSET else _format(body.response_format)
        ),
    }
    return {name: value for name, value in values.items() if value is not UNSET}


def build_thread(body: CreateThread, now: int) -> Thread:
    """Return the thread that `body` describes, without its messages."""
    return Thread(
        id=new_id("thread"),
        created_at=now,
        tool_resources=_resources(body.tool_resources),
        metadata=given(body.metadata) or {},
    )


def thread_changes(body: UpdateThread) -> dict[str, Any]:
    """Return the fields of the thread that `body` changes."""
    changes: dict[str, Any] = {}
    if body.metadata is not UNSET:
        changes["metadata"] = body.metadata or {}
    if body.tool_resources is not UNSET:
        changes["tool_resources"] = _resources(body.tool_resources)
    return changes


def metadata_changes(body: UpdateMessage | UpdateRun) -> dict[str, Any]:
    """Return the fields that `body` changes: the metadata, if it was sent."""
    return {} if body.metadata is UNSET else {"metadata": body.metadata or {}}


def build_message(
    body: CreateMessage, thread_id: str, now: int, *, run_id: str | None = None
) -> Message:
    """Return the message that `body` describes; `run_id` is the run it came with."""
    sent = body.content
    content = text_content(sent) if isinstance(sent, str) else [_content(part) for part in sent]
    return Message(
        id=new_id("msg"),
        created_at=now,
        thread_id=thread_id,
        completed_at=now,
        role=body.role,
        content=content,
        run_id=run_id,
        attachments=_as(list[Attachment], given(body.attachments) or []),
        metadata=given(body.metadata) or {},
    )


def text_content(text: str) -> list[Content]:
    """Return the content of a message that is one text."""
    return [TextContent(text=Text(value=text))]


def _content(part: RequestContent) -> Content:
    if isinstance(part, RequestTextContent):
        return TextContent(text=Text(value=part.text))
    if isinstance(part, RequestImageFileContent):
        file = part.image_file
        return ImageFileContent(
            image_file=ImageFile(file_id=file.file_id, detail=given(file.detail) or "auto")
        )
    image = part.image_url
    return ImageURLContent(image_url=ImageURL(url=image.url, detail=given(image.detail) or "auto"))


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run about to be stored, and what comes with it."""

    run: Run
    base_instructions: str
    """What the run's instructions begin with, its additional ones apart."""
    messages: list[Message]
    """Put on the thread before the run starts."""
    reasoning_effort: str | None
    """For the model; the wire's run does not show it."""


def build_new_run(
    assistant: Assistant,
    thread_id: str,
    body: CreateRun | CreateThreadAndRun,
    now: int,
    lifetime: int,
    *,
    hosted_tools: HostedTools = "error",
) -> NewRun:
    """Return the run that `body` asks for, with its additional messages.

    Raises:
        Refusal: A tool is one that only OpenAI hosts, and `hosted_tools` says "error"; or the
            tool choice names none of the tools.
    """
    run = build_run(assistant, thread_id, body, now, lifetime)
    check_hosted(run, hosted_tools)
    extra = given(body.additional_messages) if isinstance(body, CreateRun) else None
    effort = given(body.reasoning_effort) if isinstance(body, CreateRun) else None
    return NewRun(
        run=run,
        base_instructions=_base_instructions(assistant, body),
        messages=[build_message(message, thread_id, now, run_id=run.id) for message in extra or []],
        reasoning_effort=effort or assistant.reasoning_effort,
    )


def build_run(
    assistant: Assistant,
    thread_id: str,
    body: CreateRun | CreateThreadAndRun,
    now: int,
    lifetime: int,
) -> Run:
    """Return the run: what `body` says, else what the assistant says now.

    Raises:
        Refusal: The tool choice names none of the tools.
    """
    tools = assistant.tools if given(body.tools) is None else _tools(given(body.tools))
    choice = given(body.tool_choice)
    run = Run(
        id=new_id("run"),
        created_at=now,
        thread_id=thread_id,
        assistant_id=assistant.id,
        status="queued",
        expires_at=now + lifetime,
        model=given(body.model) or assistant.model,
        instructions=_instructions(assistant, body),
        tools=tools,
        metadata=given(body.metadata) or {},
        temperature=_number(1.0, body.temperature, assistant.temperature),
        top_p=_number(1.0, body.top_p, assistant.top_p),
        max_prompt_tokens=given(body.max_prompt_tokens),
        max_completion_tokens=given(body.max_completion_tokens),
        truncation_strategy=_truncation(body),
        tool_choice="auto" if choice is None else _as(ToolChoice, choice),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        response_format=_format(body.response_format, assistant.response_format),
    )
    _check_choice(run)
    return run


def _base_instructions(assistant: Assistant, body: CreateRun | CreateThreadAndRun) -> str:
    return given(body.instructions, assistant.instructions) or ""


def _instructions(assistant: Assistant, body: CreateRun | CreateThreadAndRun) -> str:
    parts: list[str | None] = [_base_instructions(assistant, body)]
    if isinstance(body, CreateRun):
        parts.append(given(body.additional_instructions))
    return "\n\n".join(part for part in parts if part)


def _truncation(body: CreateRun | CreateThreadAndRun) -> TruncationStrategy:
    strategy = given(body.truncation_strategy)
    if strategy is None:
        return TruncationStrategy(kind="auto")
    last = given(strategy.last_messages)
    if strategy.kind == "last_messages" and last is None:
        message = "Missing required parameter: 'truncation_strategy.last_messages'."
        raise invalid(
            message,
            "truncation_strategy.last_messages",
        )
    return TruncationStrategy(kind=strategy.kind, last_messages=last)


def _check_choice(run: Run) -> None:
    choice = run.tool_choice
    if not isinstance(choice, NamedToolChoice):
        return
    if choice.kind == "function":
        name = choice.function.name if choice.function is not None else None
        names = {tool.function.name for tool in run.tools if isinstance(tool, FunctionTool)}
    else:
        name, names = choice.kind, {tool.type for tool in run.tools}
    if name not in names:
        message = "Invalid 'tool_choice': the run has no such tool."
        raise invalid(message, "tool_choice")


def _number(default: float, *values: float | None | UnsetType) -> float:
    value = given(*values)
    return default if value is None else value


def _format(sent: Any, default: ResponseFormat | None = None) -> ResponseFormat:
    value = given(sent)
    if value is None:
        return "auto" if default is None else default
    answered: ResponseFormat = _as(ResponseFormat, value)
    _bound("response_format", answered)
    return answered


def _resources(sent: RequestToolResources | None | UnsetType) -> ToolResources | None:
    resources = given(sent)
    if resources is None:
        return None
    search = given(resources.file_search)
    if search is not None and search.vector_stores:
        param = "tool_resources.file_search.vector_stores"
        message = (
            f"Invalid '{param}': this server makes no vector stores; name those that exist "
            "in 'vector_store_ids'."
        )
        raise invalid(message, param)
    answered: ToolResources = _as(ToolResources, resources)
    return answered
