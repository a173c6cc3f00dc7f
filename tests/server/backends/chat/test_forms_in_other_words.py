"""Refusals in other words, other error bodies and other statuses name the same forms."""

from __future__ import annotations

import json

import pytest

from openai_runs.server.backends.chat.forms import DEFAULTS, Refusal, other_forms
from openai_runs.server.backends.chat.truncation import is_context_full
from tests.server.backends.chat.asked import asked, built, message
from tests.server.backends.chat.test_forms import error, full, pydantic

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
    "system-that-is-no-value": (
        400,
        error(
            "Invalid value: 'system'. Supported values are: 'user' and 'assistant'.",
            param="messages[0].role",
        ),
        {"instructions": "user"},
    ),
    "system-that-is-not-one-of": (
        400,
        error("'system' is not one of ['user', 'assistant'] - 'messages.0.role'"),
        {"instructions": "user"},
    ),
    "system-that-is-no-literal": (
        422,
        pydantic(
            ["body", "messages", 0, "role"],
            text="value is not a valid enumeration member; permitted: 'user', 'assistant'",
        ),
        {"instructions": "user"},
    ),
    "content-that-is-empty-in-chinese": (
        400,
        error("messages 参数非法：content 不能为空"),
        {"content": "omit"},
    ),
    "format-by-its-mime-type": (
        400,
        error("Function calling with a response mime type: 'application/json' is unsupported"),
        {"response_format": "json_object"},
    ),
    "keyword-of-a-500": (
        500,
        error("create() got an unexpected keyword argument 'stream_options'"),
        {"stream_options": "omit"},
    ),
    "extra-input-of-a-500": (
        500,
        error("parallel_tool_calls: Extra inputs are not permitted"),
        {"parallel_tool_calls": "omit"},
    ),
    "unknown-field-of-a-500": (
        500,
        b'{"error": "json: unknown field \\"top_p\\""}',
        {"top_p": "omit"},
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


DETAIL: dict[str, tuple[int, bytes]] = {
    "by its path": (
        400,
        error("Unknown field: detail", param="messages[0].content[1].image_url.detail"),
    ),
    "by its place": (
        422,
        pydantic(["body", "messages", 0, "content", 1, "image_url", "detail"]),
    ),
    "by its name": (400, error("Unsupported parameter: image_url.detail")),
    "alone": (400, b'{"message": "json: unknown field \\"detail\\""}'),
}


@pytest.mark.parametrize("how", DETAIL)
def test_detail_of_an_image_is_left_out_where_it_is_refused(how: str) -> None:
    """And nothing else of the image."""
    image = {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}}
    request = asked(message("user", "What is it?", image))
    changes = other_forms(Refusal(*DETAIL[how]), built(request), DEFAULTS, set())

    assert changes == {"detail": "omit"}
    assert built(request, **changes)["messages"][0]["content"][1] == {
        "type": "image_url",
        "image_url": {"url": "https://a.example/b.png"},
    }


@pytest.mark.parametrize("detail", ["auto", None])
def test_detail_that_is_the_default_is_not_sent(detail: str | None) -> None:
    """Some endpoints know no such field."""
    image = {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": detail}}

    sent = built(asked(message("user", image)))["messages"][0]["content"][0]["image_url"]
    assert sent == {"url": "https://a.example/b.png"}


@pytest.mark.parametrize(
    "text",
    [
        "\u8f93\u5165\u957f\u5ea6\u8d85\u8fc7\u6a21\u578b\u6700\u5927\u4e0a\u4e0b\u6587",
        "\u8d85\u8fc7\u6700\u5927\u4e0a\u4e0b\u6587\u957f\u5ea6\u9650\u5236",
    ],
    ids=["input exceeds context", "exceeds context length"],
)
def test_full_context_is_told_in_chinese(text: str) -> None:
    """In whatever order the words stand."""
    assert is_context_full(400, text)
