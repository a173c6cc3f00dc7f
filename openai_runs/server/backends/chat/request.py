"""What is sent to a chat-completions endpoint. Pure.

What is stored stays as it was said. What is sent has no message without content and no two
neighbours of one role, arguments that are JSON objects, and ids of calls as the endpoint gave
them, or of nine letters and digits, which even the strictest takes. What is the default anyway is
not sent, since an endpoint that does not know a field may refuse it. How the rest is written is
a matter of the endpoint's forms; see `forms.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec

from openai_runs.server.backends.base import Echoed, ModelFailure, ModelRequest, Turn
from openai_runs.types.messages import (
    ImageFileContent,
    ImageURLContent,
    Message,
    RefusalContent,
    TextContent,
)
from openai_runs.types.steps import FunctionToolCall

__all__ = ["build_request"]

_DEFAULT_SAMPLING: Final = 1.0
"""`temperature` and `top_p` of a run that asked for none; some models take no other."""
_SCHEMA: Final = "Answer with nothing but JSON that matches this JSON schema:"
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}
"""Of a function that has none; some endpoints want to read so."""
_JSON: Final = "Answer with nothing but a JSON object."
_ID_CHARS: Final = 9
"""Letters or digits of an id that is made here; Mistral takes no other length."""
_NO_OUTPUT: Final = "(no output)"
"""What the model reads of a tool that returned nothing; some endpoints refuse empty outputs."""
_OPENING: Final = "(The assistant speaks first.)"
"""A user message in front of the assistant's, where an endpoint wants the user to begin."""
_CLOSING: Final = "(Please go on.)"
"""A user message behind the assistant's, where an endpoint wants the user to have spoken last."""
_BROKEN: Final = "invalid_json"
"""Key under which the model reads arguments of its own that were no JSON object."""
_OURS: Final = frozenset({"role", "content", "tool_calls"})

_Sent = dict[str, Any]


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
    answer_format, wording = _answer_format(request, forms)
    instructions = "\n\n".join(text for text in (run.instructions, wording) if text)
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(request, forms, instructions),
    }
    if forms["stream"] == "send":
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    sampling = {"temperature": run.temperature, "top_p": run.top_p}
    body.update({k: v for k, v in sampling.items() if v is not None and v != _DEFAULT_SAMPLING})
    if run.max_completion_tokens is not None and forms["max_tokens"] != "omit":
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
    wording = _JSON if forms["response_format"] == "omit" else ""
    if forms["strict"] == "omit" and isinstance(sent.get("json_schema"), dict):
        sent["json_schema"].pop("strict", None)
    return sent, wording


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
    for tool in tools:
        tool["function"].setdefault("parameters", _NO_PARAMETERS)
        if forms["strict"] == "omit":
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


def _messages(request: ModelRequest, forms: Mapping[str, str], instructions: str) -> list[_Sent]:
    """Return the thread and the run's turns, in a shape that endpoints take."""
    messages = [{"role": m.role, "content": _content(m, forms)} for m in request.messages]
    messages = [message for message in messages if message["content"]]
    used: set[str] = set()
    for turn in request.turns:
        messages += _turn(turn, forms, used)
    messages = _joined(messages)
    if not messages and not instructions.strip():  # no endpoint takes an empty list
        return [{"role": "user", "content": _OPENING}]
    if forms["opening"] == "user" and (not messages or messages[0]["role"] != "user"):
        messages.insert(0, {"role": "user", "content": _OPENING})
    if forms["closing"] == "user" and messages and messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": _CLOSING})
    return _instructed(messages, instructions, forms["instructions"])


def _content(message: Message, forms: Mapping[str, str]) -> str | list[_Sent]:
    """Return the content, empty if nothing is said in it."""
    parts: list[_Sent] = []
    for part in message.content:
        match part:
            case TextContent():
                parts += _text_part(part.text.value)
            case RefusalContent():
                parts += _text_part(part.refusal)
            case ImageURLContent():
                image = msgspec.to_builtins(part.image_url)
                if forms["detail"] == "omit" or image.get("detail") in (None, "auto"):
                    image.pop("detail", None)
                parts.append({"type": "image_url", "image_url": image})
            case ImageFileContent():
                problem = (
                    f"Message {message.id} holds an uploaded image, and this server has no files; "
                    "send the image by its URL."
                )
                raise ModelFailure(problem, code="invalid_prompt")
    if all(part["type"] == "text" for part in parts):  # the form that every endpoint takes
        return "\n".join(part["text"] for part in parts)
    return parts


def _text_part(text: str) -> list[_Sent]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _turn(turn: Turn, forms: Mapping[str, str], used: set[str]) -> list[_Sent]:
    """Return the messages of one turn: what the model said, and the outputs of its calls."""
    echoed = turn.echoed or Echoed()
    message = {**_sent_back(echoed.message, forms, _OURS), "role": "assistant"}
    if turn.text.strip():
        message["content"] = turn.text
    if not turn.tool_calls:
        return [message] if "content" in message else []
    if "content" not in message and forms["content"] != "omit":
        message["content"] = None if forms["content"] == "null" else ""
    ids = _wire_ids(turn, echoed, forms["ids"], used)
    message["tool_calls"] = [
        _call(call, call_id, echoed.calls.get(index, {}), forms)
        for index, (call, call_id) in enumerate(zip(turn.tool_calls, ids, strict=True))
    ]
    outputs = [
        {"role": "tool", "tool_call_id": call_id, "content": _output(call)}
        for call, call_id in zip(turn.tool_calls, ids, strict=True)
    ]
    return [message, *outputs]


def _sent_back(fields: _Sent, forms: Mapping[str, str], known: Collection[str]) -> _Sent:
    """Return the echoed fields that the endpoint takes."""
    return {
        name: value
        for name, value in fields.items()
        if name not in known and forms.get(f"echo.{name}") != "omit"
    }


def _call(call: FunctionToolCall, call_id: Any, echoed: _Sent, forms: Mapping[str, str]) -> _Sent:
    inner = echoed.get("function", {})
    return {
        **_sent_back(echoed, forms, {"function"}),
        "id": call_id,
        "type": "function",
        "function": {
            **_sent_back(inner, forms, ()),
            "name": call.function.name,
            "arguments": _arguments(call.function.arguments),
        },
    }


def _output(call: FunctionToolCall) -> str:
    output = call.function.output or ""
    return output if output.strip() else _NO_OUTPUT


def _arguments(text: str) -> str:
    """Return the arguments as a JSON object; broken ones as the only value of one."""
    try:
        value = msgspec.json.decode(text) if text.strip() else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return msgspec.json.encode({_BROKEN: text.encode("utf-8", "replace").decode()}).decode()
    if isinstance(value, dict):
        return text
    return "{}" if value is None else msgspec.json.encode({_BROKEN: value}).decode()


def _wire_ids(turn: Turn, echoed: Echoed, form: str, used: set[str]) -> list[Any]:
    """Return the id of each call towards the endpoint; no two of a turn are the same."""
    ids: list[Any] = []
    for index, call in enumerate(turn.tool_calls):
        given = echoed.calls.get(index, {}).get("id")
        if form != "given" or given is None or given in ids:
            given = _made_id(call.id, used)
        ids.append(given)
        used.add(str(given))
    return ids


def _made_id(call_id: str, used: Collection[str]) -> str:
    """Return an id that every endpoint takes, the same one in each request of the run."""
    made = call_id
    while True:
        made = hashlib.sha256(made.encode("utf-8", "replace")).hexdigest()
        if made[:_ID_CHARS] not in used:
            return made[:_ID_CHARS]


def _joined(messages: list[_Sent]) -> list[_Sent]:
    """Return the messages with neighbours of one role as one; outputs of tools stay apart."""
    joined: list[_Sent] = []
    for role, group in groupby(messages, key=itemgetter("role")):
        same = list(group)
        if role == "tool" or len(same) == 1:
            joined += same
            continue
        contents = [message["content"] for message in same if message.get("content")]
        whole: _Sent = {}
        for message in same:
            whole |= message
        if contents:
            whole["content"] = _as_one(contents)
        joined.append(whole)
    return joined


def _as_one(contents: list[Any]) -> Any:
    """Return contents as one: a text, unless one of them is in parts."""
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)
    return [part for content in contents for part in _parts(content)]


def _parts(content: str | list[_Sent]) -> list[_Sent]:
    return content if isinstance(content, list) else _text_part(content)


def _instructed(messages: list[_Sent], instructions: str, form: str) -> list[_Sent]:
    if not instructions.strip():
        return messages
    if form != "user":
        return [{"role": form, "content": instructions}, *messages]
    return _joined([{"role": "user", "content": instructions}, *messages])
