"""The settings of a request: what is the default anyway is not sent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.backends.chat.asked import CLOCK, WEATHER, asked, built, message, turn

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
}
NAMED = {"type": "function", "function": {"name": "clock"}}
TOLD = 'Answer with nothing but JSON that matches this JSON schema:\n{"type":"object"}'
LOOSE = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
HI = message("user", "Hi")


def settings(body: dict[str, Any]) -> dict[str, Any]:
    """Return the request without what each has."""
    return {k: v for k, v in body.items() if k not in {"model", "messages", "stream"}}


def test_defaults_are_not_sent() -> None:
    """S16: neither `auto` nor true nor 1, whether a run names them or not."""
    named = asked(HI, response_format={"type": "text"}, tool_choice="auto", temperature=1.0)
    unnamed = asked(HI, temperature=None, top_p=None, tool_choice=None, response_format=None)
    usual = {"tools": [WEATHER, CLOCK], "stream_options": {"include_usage": True}}

    assert settings(built(named)) == settings(built(unnamed)) == usual


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Any]]] = {
    "sampling": ({"temperature": 0, "top_p": 0.5}, {}, {"temperature": 0, "top_p": 0.5}),
    "sampling-left-out": (
        {"temperature": 0, "top_p": 0.5},
        {"temperature": "omit", "top_p": "omit"},
        {},
    ),
    "limit": ({"max_completion_tokens": 30}, {}, {"max_completion_tokens": 30}),
    "limit-of-old": (
        {"max_completion_tokens": 30},
        {"max_tokens": "max_tokens"},
        {"max_tokens": 30},
    ),
    "effort": ({"effort": "low"}, {}, {"reasoning_effort": "low"}),
    "effort-left-out": ({"effort": "low"}, {"reasoning_effort": "omit"}, {}),
    "one-call-at-a-time": ({"parallel_tool_calls": False}, {}, {"parallel_tool_calls": False}),
    "one-call-left-out": ({"parallel_tool_calls": False}, {"parallel_tool_calls": "omit"}, {}),
    "schema": ({"response_format": SCHEMA}, {}, {"response_format": SCHEMA}),
    "any-json": (
        {"response_format": {"type": "json_object"}},
        {},
        {"response_format": {"type": "json_object"}},
    ),
    "required": ({"tool_choice": "required"}, {}, {"tool_choice": "required"}),
    "named": ({"tool_choice": NAMED}, {}, {"tool_choice": NAMED}),
    "named-in-words": (
        {"tool_choice": NAMED},
        {"tool_choice": "words"},
        {"tool_choice": "required", "tools": [CLOCK]},
    ),
    "named-left-out": ({"tool_choice": NAMED}, {"tool_choice": "omit"}, {"tools": [CLOCK]}),
    "none": ({"tool_choice": "none"}, {}, {"tool_choice": "none"}),
    "none-left-out": ({"tool_choice": "none"}, {"tool_choice": "omit"}, {"tools": None}),
    "no-tools": ({"tools": [], "parallel_tool_calls": False}, {}, {"tools": None}),
    "not-strict": ({}, {"strict": "omit"}, {"tools": [LOOSE, CLOCK]}),
    "no-counts": ({}, {"stream_options": "omit"}, {"stream_options": None}),
    "no-stream": ({}, {"stream": "omit"}, {"stream_options": None}),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_setting_is_sent_in_the_form_of_the_endpoint(case: str) -> None:
    """In the request or, where the endpoint does not take it, left out."""
    run, forms, changes = SETTINGS[case]
    usual = {"tools": [WEATHER, CLOCK], "stream_options": {"include_usage": True}, **changes}
    expected = {name: value for name, value in usual.items() if value is not None}

    body = built(asked(HI, **run), **forms)

    assert settings(body) == expected
    assert body.get("stream") is (None if forms.get("stream") else True)


FORMATS: dict[str, tuple[dict[str, Any], str, Any, str]] = {
    "schema-as-object": (SCHEMA, "json_object", {"type": "json_object"}, TOLD),
    "schema-in-words": (SCHEMA, "omit", None, TOLD),
    "object-in-words": (
        {"type": "json_object"},
        "omit",
        None,
        "Answer with nothing but a JSON object.",
    ),
}


@pytest.mark.parametrize("case", FORMATS)
def test_format_that_an_endpoint_does_not_take_stands_in_the_instructions(case: str) -> None:
    """The model is still told what the answer has to look like."""
    wanted, form, sent, told = FORMATS[case]

    body = built(asked(HI, response_format=wanted, instructions="Be kind."), response_format=form)

    assert body.get("response_format") == sent
    assert body["messages"][0] == {"role": "system", "content": f"Be kind.\n\n{told}"}


def test_function_without_parameters_says_so() -> None:
    """Some endpoints do not know what it means to leave them out."""
    bare = {"type": "function", "function": {"name": "now"}}

    (tool,) = built(asked(HI, tools=[bare]))["tools"]

    assert tool["function"]["parameters"] == {"type": "object", "properties": {}}


def test_strict_is_left_out_of_the_schema_of_the_answer_too() -> None:
    """Where the endpoint knows it nowhere."""
    body = built(asked(HI, response_format=SCHEMA), strict="omit")

    assert "strict" not in body["response_format"]["json_schema"]


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_forced_call_is_forced_once(choice: Any) -> None:
    """Later turns are free to answer."""
    later = built(asked(HI, turns=[turn(("a", "{}", "1"))], tool_choice=choice))

    assert "tool_choice" not in later
    assert later["tools"] == [WEATHER, CLOCK]
