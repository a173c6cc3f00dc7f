"""What the fake endpoints refuse, each kind with its rules, and the words they say it in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from tests.server.backends.fake_turns import Given

__all__ = ["CONTENT_RULES", "DIALECTS", "LENIENT", "OPTIONAL", "REFUSING", "STRICT"]

CONTEXT = 12
"""Messages that a strict endpoint takes."""


class Refusal(NamedTuple):
    """What is wrong with a request."""

    rule: str
    text: str
    field: str | None = None
    """The field that is not known here."""


Rule = Callable[[dict[str, Any], list[Given]], Refusal | None]
Dialect = Callable[[Refusal], tuple[int, Any]]
_ID = re.compile(r"[A-Za-z0-9]{9}\Z")
_FIELDS = {
    "max_tokens",
    "messages",
    "model",
    "response_format",
    "stream",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
}
"""Of a request, before a strict endpoint."""
_MESSAGE_FIELDS = {
    "assistant": {
        "content",
        "extra_content",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "role",
        "tool_calls",
    },
    "system": {"content", "role"},
    "tool": {"content", "role", "tool_call_id"},
    "user": {"content", "role"},
}
_NEXT = {
    "system": {"user"},
    "user": {"assistant", "calls"},
    "assistant": {"user"},
    "calls": {"tool"},
    "tool": {"assistant", "calls", "tool"},
}
"""Role -> the roles that may follow; an assistant message with calls is `calls`."""


def known_fields(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """A field that is not known is refused by its name."""
    for name in sorted(body.keys() - _FIELDS):
        return Refusal(f"field {name}", f"Unknown field: '{name}'", name)
    for message in body["messages"]:
        for name in sorted(message.keys() - _MESSAGE_FIELDS[message["role"]]):
            return Refusal("message field", f"Extra field in message: {name}")
        for call in message.get("tool_calls", ()):
            extra = call.keys() - {"id", "type", "function", "extra_content", "signed"}
            extra |= call["function"].keys() - {"name", "arguments", "thought"}
            for name in sorted(extra):
                return Refusal("call field", f"Extra field in tool call: {name}")
    return None


def tools_make_sense(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """No empty list of tools, and no choice among none."""
    if "tools" in body and not body["tools"]:
        return Refusal("no tools", "[] is too short - 'tools'")
    if "tool_choice" in body and "tools" not in body:
        return Refusal("choice of none", "'tool_choice' is only allowed when 'tools' are specified")
    return None


def system_first(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """A system message stands first, or nowhere."""
    if any(message["role"] == "system" for message in body["messages"][1:]):
        return Refusal("system first", "System message must be at the beginning.")
    return None


def roles_alternate(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """User and assistant take turns; outputs stand behind their calls."""
    roles = [
        "calls" if message.get("tool_calls") else message["role"] for message in body["messages"]
    ]
    text = "Conversation roles must alternate user/assistant/user/assistant/..."
    if next(role for role in roles if role != "system") != "user":
        return Refusal("opening", text)
    if roles[-1] not in {"user", "tool"}:
        return Refusal("roles", text)
    for before, after in pairwise(roles):
        if after not in _NEXT[before]:
            return Refusal("roles", f"{text} ({after} after {before})")
    return None


def content_is_there(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """Every message says something, unless it calls tools."""
    for message in body["messages"]:
        if not (message.get("content") or "").strip() and not message.get("tool_calls"):
            text = f"message with role '{message['role']}' must contain non-empty content"
            return Refusal("empty", text)
    return None


def no_null(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """Content is a text, also beside calls."""
    if any(message.get("content", "") is None for message in body["messages"]):
        return Refusal("null", "invalid message content type: <nil>")
    return None


def no_empty_beside_calls(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """A text that is empty is left out, also beside calls."""
    if any(message.get("content") == "" for message in body["messages"]):
        return Refusal("blank", "messages: text content blocks must be non-empty")
    return None


def content_is_sent(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """The field itself has to be there, also beside calls."""
    if any("content" not in message for message in body["messages"]):
        return Refusal("missing", "All messages must have a 'content' key: content: field required")
    return None


def arguments_are_objects(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """The arguments of each call are the text of a JSON object."""
    for call in _calls(body):
        try:
            is_object = isinstance(json.loads(call["function"]["arguments"]), dict)
        except (TypeError, ValueError):
            is_object = False
        if not is_object:
            return Refusal(
                "arguments", "Failed to parse tool call arguments as JSON: unexpected end"
            )
    return None


def ids_have_nine(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """Ids are nine letters or digits, and those of the outputs are those of the calls."""
    for call in _calls(body):
        if not _ID.match(call["id"]):
            text = f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9."
            return Refusal("ids", text)
    return None


def outputs_answer_calls(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """Each call has one output, in the order of the calls, right behind them."""
    messages = body["messages"]
    for place, message in enumerate(messages):
        wanted = [call["id"] for call in message.get("tool_calls", ())]
        behind = messages[place + 1 : place + 1 + len(wanted)]
        if [one.get("tool_call_id") for one in behind] != wanted:
            return Refusal("outputs", "Not the same number of function calls and responses")
    return None


def given_comes_back(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """A turn with calls is what the endpoint said: nothing dropped, changed or invented."""
    for message in body["messages"]:
        if message.get("tool_calls") and not any(_is(message, one) for one in given):
            said = json.dumps(message)
            return Refusal("echo", f"reasoning_content or thought_signature is missing in {said}")
    return None


def context_is_kept(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """Only so many messages."""
    count = len(body["messages"])
    if count > CONTEXT:
        text = (
            f"the request exceeds the available context size ({count} messages), try increasing it"
        )
        return Refusal("context", text)
    return None


def no_system(body: dict[str, Any], given: list[Given]) -> Refusal | None:
    """There is no such role."""
    if any(message["role"] == "system" for message in body["messages"]):
        return Refusal("system", "System role not supported")
    return None


def _calls(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for message in body["messages"]:
        yield from message.get("tool_calls", ())


def _is(message: dict[str, Any], given: Given) -> bool:
    """Tell whether a message is a turn that was given, as JSON values."""
    fields = {name: message[name] for name in message.keys() - {"role", "content", "tool_calls"}}
    calls = message["tool_calls"]
    return (
        (message.get("content") or "") == given.text
        and _same(fields, given.message)
        and len(calls) == len(given.calls)
        and all(map(_is_call, calls, given.calls))
    )


def _is_call(call: dict[str, Any], given: dict[str, Any]) -> bool:
    said, wanted = call["function"]["arguments"], given["function"]["arguments"]
    rest = {**call, "function": {**call["function"], "arguments": ""}}
    wanted_rest = {**given, "function": {**given["function"], "arguments": ""}}
    if not given["id"]:
        rest, wanted_rest = {**rest, "id": ""}, {**wanted_rest, "id": ""}
    return _same(rest, wanted_rest) and (_same_text(said, wanted) or not _is_object(wanted))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _same_text(one: str, other: str) -> bool:
    return _is_object(one) and _is_object(other) and _same(json.loads(one), json.loads(other))


def _same(one: Any, other: Any) -> bool:
    # As text, in which 1, 1.0 and True differ.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


_ALWAYS: list[Rule] = [
    tools_make_sense,
    system_first,
    roles_alternate,
    content_is_there,
    arguments_are_objects,
    outputs_answer_calls,
]
CONTENT_RULES: dict[str, list[Rule]] = {
    "no null": [no_null],
    "no empty text": [no_empty_beside_calls],
    "no null, no empty text": [no_null, no_empty_beside_calls],
    "no null, never missing": [no_null, content_is_sent],
    "no empty text, never missing": [no_empty_beside_calls, content_is_sent],
}
"""What endpoints want where a turn has calls and no text: each leaves a way."""
LENIENT: list[Rule] = []
STRICT: list[Rule] = [
    known_fields,
    *_ALWAYS,
    no_null,
    ids_have_nine,
    given_comes_back,
    context_is_kept,
]
OPTIONAL = [
    "stream_options",
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "max_completion_tokens",
    "max_tokens",
    "response_format",
    "reasoning_effort",
]
"""Fields that an endpoint may not know."""


def _without(name: str) -> Rule:
    def rule(body: dict[str, Any], given: list[Given]) -> Refusal | None:
        text = f"Unsupported parameter: '{name}' is not supported with this model."
        return Refusal(f"field {name}", text, name) if name in body else None

    return rule


REFUSING: list[Rule] = [*map(_without, OPTIONAL), no_system, no_null, *_ALWAYS]


def _openai(refusal: Refusal) -> tuple[int, Any]:
    error = {"message": refusal.text, "type": "invalid_request_error", "param": refusal.field}
    return 400, {"error": {**error, "code": "unsupported_parameter" if refusal.field else None}}


def _text_only(refusal: Refusal) -> tuple[int, Any]:
    text = f"Unrecognized request argument supplied: {refusal.field}"
    return 400, {"error": {"message": text if refusal.field else refusal.text, "param": None}}


def _detail(refusal: Refusal) -> list[dict[str, Any]]:
    extra = {"type": "extra_forbidden", "loc": ["body", refusal.field]}
    if refusal.field:
        return [{**extra, "msg": "Extra inputs are not permitted", "input": True}]
    return [{"type": "value_error", "loc": ["body", "messages"], "msg": refusal.text}]


def _fastapi(refusal: Refusal) -> tuple[int, Any]:
    return 422, {"detail": _detail(refusal)}


def _mistral(refusal: Refusal) -> tuple[int, Any]:
    error = {"object": "error", "type": "invalid_request_error", "param": None, "code": None}
    return 422, {**error, "message": {"detail": _detail(refusal)}}


def _vllm(refusal: Refusal) -> tuple[int, Any]:
    text = str(_detail(refusal)) if refusal.field else refusal.text
    return 400, {"object": "error", "message": text, "type": "BadRequestError", "code": 400}


def _gemini(refusal: Refusal) -> tuple[int, Any]:
    text = f'Invalid JSON payload received. Unknown name "{refusal.field}": Cannot find field.'
    text = text if refusal.field else refusal.text
    return 400, [{"error": {"code": 400, "message": text, "status": "INVALID_ARGUMENT"}}]


def _ollama(refusal: Refusal) -> tuple[int, Any]:
    text = f"json: unknown field {json.dumps(refusal.field)}" if refusal.field else refusal.text
    return 400, {"error": text}


DIALECTS: dict[str, Dialect] = {
    "openai": _openai,
    "text": _text_only,
    "fastapi": _fastapi,
    "mistral": _mistral,
    "vllm": _vllm,
    "gemini": _gemini,
    "ollama": _ollama,
}
"""How an endpoint says what it refuses."""
