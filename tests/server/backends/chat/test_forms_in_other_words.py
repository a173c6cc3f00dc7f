"""Refusals in other words, other error bodies and other statuses name the same forms."""

from __future__ import annotations

import json

import pytest

from openai_runs.server.backends.chat.forms import DEFAULTS, Refusal, other_forms
from openai_runs.server.backends.chat.truncation import is_context_full
from tests.server.backends.chat.asked import asked, built
from tests.server.backends.chat.test_forms import error, full

WORDED: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "temperature-that-alone-is-allowed": (
        400,
        error("invalid temperature: only 1 is allowed for this model"),
        {"temperature": "omit"},
    ),
    "temperature-with-thinking": (
        400,
        error("`temperature` may only be set to 1 when thinking is enabled."),
        {"temperature": "omit"},
    ),
    "effort-in-camel-case": (
        400,
        b'{"code": "invalid", "error": "Argument not supported on this model: reasoningEffort"}',
        {"reasoning_effort": "omit"},
    ),
    "content-that-is-empty": (
        400,
        error("the message at position 2 with role 'assistant' must not be empty"),
        {"content": "omit"},
    ),
    "content-or-calls": (
        400,
        b'{"message": "invalid request: message at index 3 must have content or tool_calls"}',
        {"content": "omit"},
    ),
    "ids-in-camel-case": (
        400,
        error(
            "Value 'call:1' at 'messages.2.member.toolUse.toolUseId' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+"
        ),
        {"ids": "made"},
    ),
    "stream-of-a-405": (405, error("Streaming not allowed for this model"), {"stream": "omit"}),
    "stream-of-a-501": (501, error("stream=true is not implemented"), {"stream": "omit"}),
    "field-of-a-501": (
        501,
        error("Not implemented: parallel_tool_calls"),
        {"parallel_tool_calls": "omit"},
    ),
    "field-of-a-424": (
        424,
        error(json.dumps({"message": "parallel_tool_calls: Extra inputs are not permitted"})),
        {"parallel_tool_calls": "omit"},
    ),
    "param-of-a-500": (
        500,
        error("Unsupported param: parallel_tool_calls"),
        {"parallel_tool_calls": "omit"},
    ),
}


@pytest.mark.parametrize("case", WORDED)
def test_refusal_in_other_words_names_another_form(case: str) -> None:
    """And no thread loses a message over it."""
    status, content, expected = WORDED[case]
    refusal = Refusal(status, content)

    assert other_forms(refusal, built(full()), DEFAULTS, set()) == expected
    assert not is_context_full(status, refusal.text)


@pytest.mark.parametrize(
    "text",
    ["* GenerateContentRequest.contents: contents is not specified", "contents are required"],
    ids=["not-specified", "required"],
)
def test_thread_without_messages_is_opened_where_that_is_refused(text: str) -> None:
    """The instructions alone are no conversation for every endpoint."""
    body = built(asked(instructions="Greet the user."))

    assert other_forms(Refusal(400, error(text)), body, DEFAULTS, set()) == {"opening": "user"}
