"""The backend that repeats: deterministic, without a model, and able to call a tool.

"Use the tool NAME for X." calls the function NAME of the run with X as its first required
string argument; the answer then quotes the output. Anything else is repeated. Tokens are
words.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from openai_runs.server.backends.base import (
    Finish,
    ModelEvent,
    ModelRequest,
    TextDelta,
    ToolCallDelta,
)
from openai_runs.server.backends.models import ModelInfo
from openai_runs.types.runs import Usage
from openai_runs.types.tools import FunctionTool

__all__ = ["EchoBackend"]

# Both read what anybody may have written, in the event loop: nothing in them backtracks.
_REQUEST: Final = re.compile(
    r"use the tool\s++([A-Za-z0-9_-]{1,64}+)\s++for\s++(?P<subject>\S)", re.I
)
_WORD: Final = re.compile(r"\s*+\S++\s*+|\s++")
_MOST_PIECES: Final = 500
"""Deltas of one answer at most: who repeats a book need not do it word by word."""


class EchoBackend:
    """Repeats the last user message word by word, or does the tool call it asks for."""

    def __repr__(self) -> str:
        return "EchoBackend()"

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer one model call.

        Args:
            request: The run, its messages and functions.
        """
        call = None if request.turns else wanted_call(request)
        text = "" if call is not None else _answer(request)
        if call is not None:
            yield msgspec.structs.replace(call, arguments="")
            yield ToolCallDelta(arguments=call.arguments)
        for words in _words(text):
            yield TextDelta(words)
        yield Finish(usage=_usage(request, call.arguments if call is not None else text))

    async def list_models(self) -> list[ModelInfo]:
        """Return one model; a run may name any.

        Cancellation: nothing is waited for.
        """
        return [ModelInfo(id="echo")]


def _words(text: str) -> list[str]:
    """Return the text word by word, with the space after each; a long one in larger pieces.

    >>> _words("To be, or")
    ['To ', 'be, ', 'or']
    """
    words = _WORD.findall(text)
    several = -(-len(words) // _MOST_PIECES) or 1
    return ["".join(words[at : at + several]) for at in range(0, len(words), several)]


def wanted_call(request: ModelRequest) -> ToolCallDelta | None:
    """Return the tool call that the last user message asks for, if the run has that tool."""
    if request.run.tool_choice == "none":
        return None
    asked = _REQUEST.search(request.question)
    if asked is None:
        return None
    for tool in request.functions:
        if tool.function.name == asked.group(1):
            subject = request.question[asked.start("subject") :].rstrip().removesuffix(".")
            arguments = msgspec.json.encode(_arguments(tool, subject)).decode()
            return ToolCallDelta(name=tool.function.name, arguments=arguments)
    return None


def _arguments(tool: FunctionTool, subject: str) -> dict[str, str]:
    schema: dict[str, Any] = tool.function.parameters or {}
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    for name in required:
        described = properties.get(name) if isinstance(name, str) else None
        if isinstance(described, dict) and described.get("type", "string") == "string":
            return {name: subject}
    return {}


def _answer(request: ModelRequest) -> str:
    if not request.turns:
        return request.question
    outputs = [
        f"{call.function.name} says: {call.function.output or ''}"
        for turn in request.turns
        for call in turn.tool_calls
    ]
    return "\n".join(outputs)


def _usage(request: ModelRequest, written: str) -> Usage:
    read = [request.run.instructions or "", *(message.text for message in request.messages)]
    for turn in request.turns:
        read.append(turn.text)
        read.extend(call.function.output or "" for call in turn.tool_calls)
    prompt = sum(len(text.split()) for text in read)
    completion = len(written.split())
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )
