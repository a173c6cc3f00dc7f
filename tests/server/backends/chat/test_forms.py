"""What a refusal names is tried in another form, and nothing else is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openai_runs.errors import ConfigError
from openai_runs.server.backends.base import ModelRequest
from openai_runs.server.backends.chat.forms import DEFAULTS, Refusal, check_forms, other_forms
from tests.server.backends.chat.asked import asked, built, message, turn
from tests.server.backends.chat.test_request import NAMED, SCHEMA

EVERYTHING: dict[str, Any] = {
    "instructions": "Be brief.",
    "temperature": 0.2,
    "top_p": 0.5,
    "max_completion_tokens": 30,
    "effort": "low",
    "parallel_tool_calls": False,
    "response_format": SCHEMA,
}


def full() -> ModelRequest:
    """Return a model call that makes use of everything there is a form for."""
    back = {0: {"id": "call_1", "extra_content": {"a": 1}}}
    thoughts = {"reasoning_content": "x", "reasoning": "x"}
    rounds = [turn(("call_1", "{}", "1"), message=thoughts, echoed=back)]
    return asked(message("assistant", "Hello"), message("user", "Hi"), turns=rounds, **EVERYTHING)


def error(text: str, **fields: Any) -> bytes:
    """Return an error body."""
    return json.dumps({"error": {"message": text, **fields}}).encode()


def pydantic(*locs: list[Any], text: str = "Extra inputs are not permitted") -> bytes:
    """Return the body of a 422 as FastAPI has it."""
    return json.dumps(
        {"detail": [{"type": "extra_forbidden", "loc": loc, "msg": text} for loc in locs]}
    ).encode()


LEARNT: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "S12-nil-content": (
        400,
        error("invalid message content type: <nil>"),
        {"content": "omit"},
    ),
    "empty-content": (
        400,
        error("messages.2: text content blocks must be non-empty"),
        {"content": "omit"},
    ),
    "content-of-no-text": (
        422,
        pydantic(["body", "messages", 2, "content"], text="Input should be a valid string"),
        {"content": "omit"},
    ),
    "S16-parallel": (
        400,
        error(
            "Unsupported parameter: 'parallel_tool_calls' is not supported with this model.",
            param="parallel_tool_calls",
            code="unsupported_parameter",
        ),
        {"parallel_tool_calls": "omit"},
    ),
    "parallel-by-path": (
        422,
        pydantic(["body", "parallel_tool_calls"]),
        {"parallel_tool_calls": "omit"},
    ),
    "parallel-flat": (
        400,
        error("[{'loc': ('body', 'parallel_tool_calls'), 'msg': 'extra fields not permitted'}]"),
        {"parallel_tool_calls": "omit"},
    ),
    "several-at-once": (
        422,
        pydantic(["body", "stream_options"], ["body", "parallel_tool_calls"], ["body", "top_p"]),
        {"stream_options": "omit", "parallel_tool_calls": "omit", "top_p": "omit"},
    ),
    "wrapped-pydantic": (
        422,
        b'{"object": "error", "message": ' + pydantic(["body", "stream_options"]) + b"}",
        {"stream_options": "omit"},
    ),
    "stream-options": (
        400,
        error("Unrecognized request argument supplied: stream_options"),
        {"stream_options": "omit"},
    ),
    "stream-options-requires": (
        400,
        error("Only allowed when using stream: stream_options is not supported"),
        {"stream_options": "omit"},
    ),
    "stream-options-of-another-type": (
        422,
        pydantic(["body", "stream_options"], text="Input should be null"),
        {"stream_options": "omit"},
    ),
    "in-chinese": (
        400,
        error("\u5f53\u524d\u6a21\u578b\u4e0d\u652f\u6301temperature"),
        {"temperature": "omit"},
    ),
    "stream": (400, error("This model does not support streaming."), {"stream": "omit"}),
    "temperature": (
        400,
        error(
            "Unsupported value: 'temperature' does not support 0.2 with this model. "
            "Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        ),
        {"temperature": "omit"},
    ),
    "temperature-deprecated": (
        400,
        error("`temperature` is deprecated for this model."),
        {"temperature": "omit"},
    ),
    "top-p": (400, error("top_p is not supported for this model"), {"top_p": "omit"}),
    "both-samplings": (
        400,
        error("`temperature` and `top_p` cannot both be specified for this model."),
        {"temperature": "omit"},
    ),
    "effort": (
        400,
        error("Unrecognized request argument supplied: reasoning_effort"),
        {"reasoning_effort": "omit"},
    ),
    "effort-value": (
        400,
        error("Unsupported value: 'reasoning_effort' does not support 'low' with this model."),
        {"reasoning_effort": "omit"},
    ),
    "new-limit": (
        400,
        error("Unknown parameter: 'max_completion_tokens'.", param="max_completion_tokens"),
        {"max_tokens": "max_tokens"},
    ),
    "new-limit-by-path": (
        422,
        pydantic(["body", "max_completion_tokens"]),
        {"max_tokens": "max_tokens"},
    ),
    "schema": (
        400,
        error(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with "
            "this model."
        ),
        {"response_format": "json_object"},
    ),
    "schema-unavailable": (
        400,
        error("This response_format type is unavailable now"),
        {"response_format": "json_object"},
    ),
    "schema-of-a-rust-server": (
        422,
        b"Failed to deserialize the JSON body: response_format.type: unknown variant `json_schema`",
        {"response_format": "json_object"},
    ),
    "strict": (
        422,
        pydantic(["body", "tools", 0, "function", "strict"]),
        {"strict": "omit"},
    ),
    "strict-by-param": (
        400,
        error("Unknown parameter: 'tools[0].function.strict'.", param="tools[0].function.strict"),
        {"strict": "omit"},
    ),
    "S23-system": (400, error("System role not supported"), {"instructions": "user"}),
    "system-in-a-template": (
        500,
        error("Jinja Exception: System role not supported"),
        {"instructions": "user"},
    ),
    "only-users": (
        400,
        error("Only user, assistant and tool roles are supported!"),
        {"instructions": "user"},
    ),
    "gemma": (
        400,
        b"[" + error("Developer instruction is not enabled for models/gemma", code=400) + b"]",
        {"instructions": "user"},
    ),
    "system-becomes-developer": (
        400,
        error("'system' is not supported with this model. Use 'developer' instead."),
        {"instructions": "developer"},
    ),
    "roles-must-alternate": (
        400,
        error("After the optional system message, conversation roles must alternate user/..."),
        {"opening": "user"},
    ),
    "user-first": (
        400,
        error("First message must be from the user"),
        {"opening": "user"},
    ),
    "system-by-path": (
        422,
        pydantic(["body", "messages", 0, "role"], text="Input should be 'user' or 'assistant'"),
        {"instructions": "user"},
    ),
    "role-must-be-in": (
        400,
        error("Role must be in ['user', 'assistant']"),
        {"instructions": "user"},
    ),
    "ids-by-pattern": (
        400,
        error("messages.2.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"),
        {"ids": "made"},
    ),
    "S26-ids": (
        400,
        error("Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9."),
        {"ids": "made"},
    ),
    "long-ids": (
        400,
        error(
            "Invalid 'messages[2].tool_calls[0].id': string too long. Expected a string with "
            "maximum length 40",
            param="messages[2].tool_calls[0].id",
        ),
        {"ids": "made"},
    ),
    "echoed-reasoning": (
        400,
        error(
            "'messages.2' : for 'role:assistant' the following must be satisfied[('messages.2' : "
            "property 'reasoning' is unsupported)]"
        ),
        {"echo.reasoning": "omit"},
    ),
    "echoed-reasoning-by-path": (
        422,
        pydantic(["body", "messages", 2, "assistant", "reasoning_content"]),
        {"echo.reasoning_content": "omit"},
    ),
    "echoed-reasoning-in-words": (
        400,
        error("Please remove the reasoning_content from your message"),
        {"echo.reasoning_content": "omit"},
    ),
    "echoed-in-a-call": (
        400,
        error("Invalid JSON payload. Unknown name 'extra_content' at 'messages[2].tool_calls[0]'"),
        {"echo.extra_content": "omit"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEARNT)
def test_refusal_of_a_form_names_another_one(case: str) -> None:
    """Whatever the body of the error looks like: the first field that it complains about."""
    status, content, expected = LEARNT[case]

    assert other_forms(Refusal(status, content), built(full()), DEFAULTS, set()) == expected


CHOICES: dict[str, tuple[Any, bytes, dict[str, str]]] = {
    "auto-is-never-sent": (
        "auto",
        error('"auto" tool choice requires --enable-auto-tool-choice to be set'),
        {},
    ),
    "required": (
        "required",
        error("tool_choice 'required' is not supported by this model"),
        {"tool_choice": "words"},
    ),
    "named": (
        NAMED,
        error("Invalid tool_choice type: 'object'. Supported string values: none, auto, required"),
        {"tool_choice": "words"},
    ),
    "named-nowhere": (
        NAMED,
        error("No endpoints found that support the provided 'tool_choice' value."),
        {"tool_choice": "words"},
    ),
}


@pytest.mark.parametrize("case", CHOICES)
def test_refused_tool_choice_is_said_in_another_way(case: str) -> None:
    """Only where one was sent."""
    choice, content, expected = CHOICES[case]
    body = built(asked(message("user", "Hi"), tool_choice=choice))

    assert other_forms(Refusal(404, content), body, DEFAULTS, set()) == expected


LEFT_ALONE: dict[str, tuple[int, bytes]] = {
    "another-status": (401, error("Unsupported parameter: 'temperature'")),
    "rate-limit": (429, error("stream_options is not supported")),
    "value-of-the-caller": (
        400,
        error("Invalid 'temperature': decimal above maximum value. Expected a value <= 1"),
    ),
    "limit-too-large": (
        400,
        error("max_tokens is too large: 30. This model supports at most 16 completion tokens"),
    ),
    "schema-of-the-caller": (
        400,
        error(
            "Invalid schema for response_format 's': In context=(), 'x' is not permitted.",
            param="response_format",
        ),
    ),
    "missing-thoughts": (400, error("reasoning_content is missing in assistant message")),
    "thoughts-not-passed": (
        400,
        error("The `reasoning_content` in the thinking mode must be passed back to the API."),
    ),
    "no-such-model": (404, error("The model `m` does not exist")),
    "no-tools": (400, error("registry/library/m does not support tools")),
    "unanswered-call": (
        400,
        error(
            "An assistant message with 'tool_calls' must be followed by tool messages. The "
            "following tool_call_ids did not have response messages: call_1"
        ),
    ),
    "policy": (400, error("The content was refused: content policy is required")),
    "field-that-was-not-sent": (400, error("Unsupported parameter: 'logprobs'", param="logprobs")),
    "server-error": (500, error("temperature is not supported")),
    "html": (400, b"<html>Bad Request</html>"),
    "method-of-a-405": (405, error("Method Not Allowed")),
    "nothing": (400, b""),
    "list": (400, b"[[], 7, null]"),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_error_that_no_other_form_mends_changes_nothing(case: str) -> None:
    """The caller reads it; what the caller set is not dropped in silence."""
    status, content = LEFT_ALONE[case]

    assert other_forms(Refusal(status, content), built(full()), DEFAULTS, set()) == {}


FALSE_FORMS = {
    "name": ({"tempreature": "omit"}, "there is no 'tempreature'; there are stream_options, "),
    "form": ({"content": "none"}, "'content' must be one of empty, omit, null, got 'none'"),
    "echo": ({"echo.reasoning": "no"}, "'echo.reasoning' must be one of send, omit"),
}


@pytest.mark.parametrize("case", FALSE_FORMS)
def test_form_that_does_not_exist_is_refused_at_once(case: str) -> None:
    """With those that there are."""
    forms, words = FALSE_FORMS[case]

    with pytest.raises(ConfigError, match=words):
        check_forms(forms)
