"""What is sent to a chat-completions endpoint. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from openai_runs.server.backends.base import ModelFailure, ModelRequest, Turn
from openai_runs.types.messages import (
    ImageFileContent,
    ImageURLContent,
    Message,
    RefusalContent,
    TextContent,
)

__all__ = ["build_request"]

_DEFAULT_SAMPLING: Final = 1.0
"""`temperature` and `top_p` of a run that asked for none; some models take no other."""


def build_request(request: ModelRequest, model: str | None, tokens_field: str) -> dict[str, Any]:
    """Return the JSON object to post.

    Args:
        request: The model call.
        model: What to call the model there; None: as the run does.
        tokens_field: `max_completion_tokens`, or `max_tokens` for endpoints that know no other.

    Raises:
        ModelFailure: A message holds what this wire cannot carry.
    """
    run = request.run
    body: dict[str, Any] = {
        "model": model or run.model,
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sampling = {"temperature": run.temperature, "top_p": run.top_p}
    body.update({k: v for k, v in sampling.items() if v is not None and v != _DEFAULT_SAMPLING})
    if run.max_completion_tokens is not None:
        body[tokens_field] = run.max_completion_tokens - request.spent.completion_tokens
    if request.reasoning_effort is not None:
        body["reasoning_effort"] = request.reasoning_effort
    if run.response_format is not None and run.response_format != "auto":
        body["response_format"] = msgspec.to_builtins(run.response_format)
    if request.functions:
        body["tools"] = msgspec.to_builtins(request.functions)
        body["tool_choice"] = msgspec.to_builtins(run.tool_choice or "auto")
        body["parallel_tool_calls"] = run.parallel_tool_calls
        if request.turns and run.tool_choice not in ("auto", "none"):
            # A forced call is forced once, or the run could never come to an answer.
            body["tool_choice"] = "auto"
    return body


def _messages(request: ModelRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if request.run.instructions:
        messages.append({"role": "system", "content": request.run.instructions})
    messages += [{"role": m.role, "content": _content(m)} for m in request.messages]
    for turn in request.turns:
        messages += _turn(turn)
    return messages


def _content(message: Message) -> str | list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for part in message.content:
        match part:
            case TextContent():
                parts.append({"type": "text", "text": part.text.value})
            case RefusalContent():
                parts.append({"type": "text", "text": part.refusal})
            case ImageURLContent():
                parts.append(
                    {"type": "image_url", "image_url": msgspec.to_builtins(part.image_url)}
                )
            case ImageFileContent():
                problem = (
                    f"Message {message.id} holds an uploaded image, and this server has no files; "
                    "send the image by its URL."
                )
                raise ModelFailure(problem, code="invalid_prompt")
    if all(part["type"] == "text" for part in parts):  # the form that every endpoint takes
        return "\n".join(part["text"] for part in parts)
    return parts


def _turn(turn: Turn) -> list[dict[str, Any]]:
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in turn.tool_calls
    ]
    outputs = [
        {"role": "tool", "tool_call_id": call.id, "content": call.function.output or ""}
        for call in turn.tool_calls
    ]
    return [{"role": "assistant", "content": turn.text or None, "tool_calls": calls}, *outputs]
