"""What a backend is asked, and what it answers with.

A backend makes one model call at a time; it knows no run's life, no store, no HTTP of
ours. Events come as they arise, so that they can be passed on while the call goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import msgspec

from openai_runs.types.messages import Message
from openai_runs.types.runs import Run, Usage
from openai_runs.types.steps import FunctionToolCall
from openai_runs.types.tools import FunctionTool

__all__ = [
    "Backend",
    "Echoed",
    "Finish",
    "FinishReason",
    "ModelEvent",
    "ModelFailure",
    "ModelRequest",
    "TextDelta",
    "ToolCallDelta",
    "Turn",
]


class FinishReason:
    """Why a model stopped."""

    STOP = "stop"
    """It was done, with text or with tool calls."""
    LENGTH = "length"
    """It met `max_completion_tokens`; the run ends `incomplete`."""
    PROMPT_LENGTH = "prompt_length"
    """It met `max_prompt_tokens`; the run ends `incomplete`."""
    CONTENT_FILTER = "content_filter"
    """What it wrote was held back; the run ends `failed` with `invalid_prompt`."""


class Echoed(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of an answer that the endpoint wants back in the run's later model calls.

    They are the endpoint's own, private to the run, and shown to nobody: reasoning,
    signatures, ids. The values are JSON values.
    """

    message: dict[str, Any] = {}
    """Fields of the assistant message."""
    calls: dict[int, dict[str, Any]] = {}
    """Fields of its tool calls, by the index of the call in the turn."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier model call of the same run, with what came of it."""

    text: str = ""
    tool_calls: list[FunctionToolCall] = []
    """With their outputs."""
    echoed: Echoed | None = None
    """What the endpoint wants back with it."""


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One model call."""

    run: Run
    """Model, instructions, temperature, limits, response format, tool choice."""
    messages: list[Message]
    """The thread before the run, oldest first, as its truncation strategy leaves it."""
    turns: list[Turn] = []
    """The run's earlier model calls, oldest first."""
    spent: Usage
    """Tokens of those calls."""
    reasoning_effort: str | None = None
    headers: Mapping[str, str] = {}
    """Headers that make a request to the endpoint part of the run's trace; empty without."""

    @property
    def functions(self) -> list[FunctionTool]:
        """Return the functions the model may ask for."""
        return [tool for tool in self.run.tools if isinstance(tool, FunctionTool)]

    @property
    def question(self) -> str:
        """Return the text of the last user message, or an empty one."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")


class TextDelta(msgspec.Struct, frozen=True):
    """More text."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call, or more of one: parts of the same `index` belong together."""

    index: int = 0
    id: str = ""
    """The model's own id for it; empty: the server makes one."""
    name: str = ""
    arguments: str = ""
    """JSON text; pieces are put together as they come, broken or not."""


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the call; the last event."""

    reason: str = FinishReason.STOP
    """One of `FinishReason`."""
    usage: Usage | None = None
    echoed: Echoed | None = None
    """What the endpoint wants back with this turn."""
    word: str = ""
    """What the endpoint called the reason, where it has a word for it."""


ModelEvent = TextDelta | ToolCallDelta | Finish


class ModelFailure(Exception):  # noqa: N818 - a result of the model call, shown as `last_error`
    """The call failed; the run ends `failed` with this code and text."""

    def __init__(self, message: str, *, code: str = "server_error") -> None:
        """Keep both; `message` is shown to whoever reads the run, so it names no secret.

        Args:
            message: What went wrong.
            code: `server_error`, `rate_limit_exceeded` or `invalid_prompt`.
        """
        super().__init__(message)
        self.message = message
        self.code = code


class Backend(Protocol):
    """Where answers come from."""

    def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Make one model call: an async generator of its events, the last one a `Finish`.

        Calls are made at least once: after a crash of the server the same call comes again.
        An optional coroutine method `aclose()` is awaited when the server closes.

        Args:
            request: The run, its messages, its functions, and the turns there were before.

        Raises:
            ModelFailure: The call failed in a way the run should show.

        Cancellation: stops the call.
        """
        ...
