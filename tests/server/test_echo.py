"""The backend that repeats: the same answer to the same question, always."""

from __future__ import annotations

from typing import Any

import pytest

from openai_runs.server import EchoBackend
from tests.server.conftest import Serve
from tests.server.support import FUNCTION, told_text


async def test_last_user_message_is_repeated(serve: Serve) -> None:
    """Words are counted as tokens, the instructions among them."""
    caller = await serve(backend=EchoBackend())

    run = await caller.start("Say this again", instructions="Be brief.")
    run = await caller.settled(run)

    assert (await caller.messages(run))[-1]["content"][0]["text"]["value"] == "Say this again"
    assert run["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


async def test_thread_without_a_question_is_answered_too(serve: Serve) -> None:
    """With an empty text, and not with a failure."""
    caller = await serve(backend=EchoBackend())

    run = await caller.settled(await caller.start(None))

    assert run["status"] == "completed"
    assert (await caller.messages(run))[-1]["content"][0]["text"]["value"] == ""


async def test_tool_is_called_when_asked_for(serve: Serve) -> None:
    """X is the first required string; the output is in the answer."""
    caller = await serve(backend=EchoBackend())

    waiting = await caller.settled(await caller.start("Use the tool weather for San Jose."))
    run = await caller.settled((await caller.submit(waiting, "22 C")).json)

    (call,) = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city":"San Jose"}'}
    assert (await caller.messages(run))[-1]["content"][0]["text"]["value"] == "weather says: 22 C"


NO_CALL: dict[str, dict[str, Any]] = {
    "other-tool": {"tools": [{"type": "function", "function": {"name": "other"}}]},
    "no-tools": {"tools": []},
    "not-allowed": {"tools": [FUNCTION], "tool_choice": "none"},
}


@pytest.mark.parametrize("fields", NO_CALL.values(), ids=NO_CALL)
async def test_tool_is_not_called_when_the_run_cannot(serve: Serve, fields: Any) -> None:
    """The question is repeated like any other."""
    caller = await serve(backend=EchoBackend())

    run = await caller.settled(await caller.start("Use the tool weather for Oslo.", **fields))

    assert run["status"] == "completed"


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        ({}, "{}"),
        ({"properties": {"n": {"type": "integer"}}, "required": ["n"]}, "{}"),
        (
            {
                "properties": {"n": {"type": "integer"}, "a": {"type": "string"}},
                "required": ["n", "a"],
            },
            '{"a":"Oslo"}',
        ),
        ({"properties": {"a": {}}, "required": ["a"]}, '{"a":"Oslo"}'),
        ({"properties": [], "required": "a"}, "{}"),
    ],
)
async def test_arguments_fit_what_the_function_asks_for(
    serve: Serve, parameters: Any, arguments: str
) -> None:
    """A function without a required string is called without arguments."""
    caller = await serve(backend=EchoBackend())
    function = {"name": "f", "parameters": parameters}

    run = await caller.start(
        "Use the tool f for Oslo", tools=[{"type": "function", "function": function}]
    )
    run = await caller.settled(run)

    (call,) = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    assert call["function"]["arguments"] == arguments


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello", ["Hello"]),
        (" To be,\nor  not", [" To ", "be,\n", "or  ", "not"]),
        ("  ", ["  "]),
    ],
)
async def test_text_is_said_word_by_word(serve: Serve, text: str, pieces: list[str]) -> None:
    """Each word with the space behind it, so that nothing is lost."""
    caller = await serve(backend=EchoBackend())

    events = (await caller.start_stream(text)).events

    deltas = [event.data["delta"] for event in events if event.name == "thread.message.delta"]
    assert [delta["content"][0]["text"]["value"] for delta in deltas] == pieces


async def test_long_text_is_said_in_fewer_pieces(serve: Serve) -> None:
    """A book is not repeated word by word."""
    caller = await serve(backend=EchoBackend())
    text = " ".join(str(number) for number in range(5000))

    events = (await caller.start_stream(text)).events

    assert told_text(events) == text
    assert [event.name for event in events].count("thread.message.delta") == 500
