"""The wire's objects as somebody writes them by hand for msgspec: every field, nothing more.

They know no unknown tools, mend nothing, and carry no headers; the baseline decodes to them.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["EVENT", "RUN", "RUNS", "STEPS", "Run"]


class FileSearch(msgspec.Struct, frozen=True, tag="file_search"):
    """A tool."""

    file_search: dict[str, Any] | None = None


class CodeInterpreter(msgspec.Struct, frozen=True, tag="code_interpreter"):
    """A tool."""


class FunctionDefinition(msgspec.Struct, frozen=True):
    """What a function takes."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Function(msgspec.Struct, frozen=True, tag="function"):
    """A tool."""

    function: FunctionDefinition


class Usage(msgspec.Struct, frozen=True):
    """Tokens used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Truncation(msgspec.Struct, frozen=True):
    """How a thread is cut short."""

    type: str
    last_messages: int | None = None


class LastError(msgspec.Struct, frozen=True):
    """Why it failed."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Which limit was met."""

    reason: str | None = None


class CallResult(msgspec.Struct, frozen=True):
    """A function call."""

    name: str
    arguments: str
    output: str | None = None


class FunctionCall(msgspec.Struct, frozen=True, tag="function"):
    """A tool call."""

    id: str
    function: CallResult


class CodeInterpreterCall(msgspec.Struct, frozen=True, tag="code_interpreter"):
    """A tool call."""

    id: str
    code_interpreter: dict[str, Any]


class FileSearchCall(msgspec.Struct, frozen=True, tag="file_search"):
    """A tool call."""

    id: str
    file_search: dict[str, Any]


class PendingCalls(msgspec.Struct, frozen=True):
    """The calls that wait."""

    tool_calls: list[FunctionCall]


class RequiredAction(msgspec.Struct, frozen=True):
    """What the run waits for."""

    type: str
    submit_tool_outputs: PendingCalls | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True, tag="thread.run", tag_field="object"):
    """A run."""

    id: str
    created_at: int
    thread_id: str
    assistant_id: str
    status: str
    required_action: RequiredAction | None = None
    last_error: LastError | None = None
    expires_at: int | None = None
    started_at: int | None = None
    cancelled_at: int | None = None
    failed_at: int | None = None
    completed_at: int | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    instructions: str | None = None
    tools: list[FileSearch | CodeInterpreter | Function]
    metadata: dict[str, str] | None = None
    usage: Usage | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_prompt_tokens: int | None = None
    max_completion_tokens: int | None = None
    truncation_strategy: Truncation | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    response_format: str | dict[str, Any] | None = None


class MessageId(msgspec.Struct, frozen=True):
    """The message that was written."""

    message_id: str


class MessageCreation(msgspec.Struct, frozen=True, tag="message_creation"):
    """What a step did."""

    message_creation: MessageId


class ToolCalls(msgspec.Struct, frozen=True, tag="tool_calls"):
    """What a step did."""

    tool_calls: list[FunctionCall | CodeInterpreterCall | FileSearchCall]


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="thread.run.step", tag_field="object"):
    """A step."""

    id: str
    created_at: int
    assistant_id: str
    thread_id: str
    run_id: str
    type: str
    status: str
    step_details: MessageCreation | ToolCalls
    last_error: LastError | None = None
    expired_at: int | None = None
    cancelled_at: int | None = None
    failed_at: int | None = None
    completed_at: int | None = None
    metadata: dict[str, str] | None = None
    usage: Usage | None = None


class TextValue(msgspec.Struct, frozen=True):
    """Text, or a piece of it."""

    value: str | None = None
    annotations: list[dict[str, Any]] | None = None


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A part of a message."""

    text: TextValue
    index: int = 0


class Image(msgspec.Struct, frozen=True, tag="image_file"):
    """A part of a message."""

    image_file: dict[str, Any]
    index: int = 0


class Message(msgspec.Struct, frozen=True, kw_only=True, tag="thread.message", tag_field="object"):
    """A message."""

    id: str
    created_at: int
    thread_id: str
    status: str
    incomplete_details: IncompleteDetails | None = None
    completed_at: int | None = None
    incomplete_at: int | None = None
    role: str
    content: list[Text | Image]
    assistant_id: str | None = None
    run_id: str | None = None
    attachments: list[dict[str, Any]] | None = None
    metadata: dict[str, str] | None = None


class Pieces(msgspec.Struct, frozen=True):
    """What a delta adds."""

    role: str | None = None
    content: list[Text | Image] | None = None


class Delta(msgspec.Struct, frozen=True, tag="thread.message.delta", tag_field="object"):
    """A piece of a message."""

    id: str
    delta: Pieces


class StepDelta(msgspec.Struct, frozen=True, tag="thread.run.step.delta", tag_field="object"):
    """A piece of a step."""

    id: str
    delta: dict[str, Any]


class RunPage(msgspec.Struct, frozen=True):
    """A page of runs."""

    data: list[Run]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StepPage(msgspec.Struct, frozen=True):
    """A page of steps."""

    data: list[Step]
    first_id: str | None
    last_id: str | None
    has_more: bool


RUN = msgspec.json.Decoder(Run)
RUNS = msgspec.json.Decoder(RunPage)
STEPS = msgspec.json.Decoder(StepPage)
EVENT = msgspec.json.Decoder(Run | Step | Message | Delta | StepDelta)
