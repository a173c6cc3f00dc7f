"""What is sent to a chat-completions endpoint. Pure.

What is the default anyway is not sent, since an endpoint that does not know a field may refuse
it. How the rest is written is a matter of the endpoint's forms; see `forms.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from openai_runs.server.backends.base import ModelRequest
from openai_runs.server.backends.chat.conversation import build_messages

__all__ = ["build_request"]

_DEFAULT_SAMPLING: Final = 1.0
"""`temperature` and `top_p` of a run that asked for none; some models take no other."""
_SCHEMA: Final = "Answer with nothing but JSON that matches this JSON schema:"
_JSON: Final = "Answer with nothing but a JSON object."


def build_request(request: ModelRequest, model: str, forms: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON object to post.

    Args:
        request: The model call.
        model: What to call the model there.
        forms: How this endpoint wants it; see `forms.py`.

    Raises:
        ModelFailure: A message holds what this wire cannot carry.
    """
    run = request.run
    answer_format, told = _answer_format(request, forms)
    instructions = "\n\n".join(text for text in (run.instructions, told) if text)
    body: dict[str, Any] = {
        "model": model,
        "messages": build_messages(request, forms, instructions),
    }
    if forms["stream"] == "send":
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    sampling = {"temperature": run.temperature, "top_p": run.top_p}
    body.update({k: v for k, v in sampling.items() if v is not None and v != _DEFAULT_SAMPLING})
    if run.max_completion_tokens is not None:
        body[forms["max_tokens"]] = run.max_completion_tokens - request.spent.completion_tokens
    if request.reasoning_effort is not None:
        body["reasoning_effort"] = request.reasoning_effort
    if answer_format is not None:
        body["response_format"] = answer_format
    body.update(_tools(request, forms))
    return {name: value for name, value in body.items() if forms.get(name) != "omit"}


def _answer_format(
    request: ModelRequest, forms: Mapping[str, str]
) -> tuple[dict[str, Any] | None, str]:
    """Return the response format to send, and what the instructions have to say in its place."""
    wanted = request.run.response_format
    sent: Any = None if wanted is None else msgspec.to_builtins(wanted)
    if not isinstance(sent, dict) or sent.get("type") == "text":
        return None, ""
    if sent.get("type") == "json_schema" and forms["response_format"] != "send":
        schema = msgspec.json.encode(sent["json_schema"].get("schema", {})).decode()
        return {"type": "json_object"}, f"{_SCHEMA}\n{schema}"
    told = _JSON if forms["response_format"] == "omit" else ""
    if forms["strict"] == "omit" and isinstance(sent.get("json_schema"), dict):
        sent["json_schema"].pop("strict", None)
    return sent, told


def _tools(request: ModelRequest, forms: Mapping[str, str]) -> dict[str, Any]:
    """Return the functions on offer, and what is said of their use."""
    run = request.run
    tools: list[dict[str, Any]] = msgspec.to_builtins(request.functions)
    choice: Any = msgspec.to_builtins(run.tool_choice or "auto")
    if request.turns and choice != "none":
        choice = "auto"  # a forced call is forced once, or the run could never come to an answer
    if forms["tool_choice"] != "send":
        tools, choice = _in_words(tools, choice)
        if choice == "none" and forms["tool_choice"] == "omit":
            return {}
    if not tools:
        return {}
    if forms["strict"] == "omit":
        for tool in tools:
            tool["function"].pop("strict", None)
    fields: dict[str, Any] = {"tools": tools}
    if choice != "auto":
        fields["tool_choice"] = choice
    if not run.parallel_tool_calls:
        fields["parallel_tool_calls"] = False
    return fields


def _in_words(tools: list[dict[str, Any]], choice: Any) -> tuple[list[dict[str, Any]], Any]:
    """Return a named tool as the only one on offer, which is required."""
    if not isinstance(choice, dict):
        return tools, choice
    name = (choice.get("function") or {}).get("name")
    return [tool for tool in tools if tool["function"]["name"] == name] or tools, "required"
