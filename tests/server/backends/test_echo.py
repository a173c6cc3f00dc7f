"""The backend that repeats: the same answer to the same question, always."""

from __future__ import annotations

import json
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


FLOODS = {
    "blanks": " " * 150_000,
    "newlines": "\n" * 150_000,
    "tabs": "\t" * 150_000,
    "no-break spaces": "\u00a0" * 150_000,
    "em spaces": "\u2003" * 150_000,
    "a request of blanks": "use the tool" + " " * 150_000,
    "a subject of blanks": "use the tool weather for " + " \n" * 75_000 + ".",
    "blanks before more": "use the tool weather for a" + " " * 150_000 + "b",
    "beginnings": "use the tool " * 50_000,
    "requests": "use the tool x for " * 30_000,
    "one word": "x" * 500_000,
    "many words": "x " * 100_000,
}


@pytest.mark.parametrize("text", FLOODS.values(), ids=FLOODS)
async def test_no_message_holds_the_server_up(serve: Serve, text: str) -> None:
    """It answers others while the text is executed, and the run comes to its end."""
    caller = await serve(backend=EchoBackend())

    run = await caller.start(text)
    health = await caller.health()
    run = await caller.settled(run)

    assert health.status == 200
    assert run["status"] in {"completed", "requires_action"}


SUBJECTS = {
    "Use the tool weather for San Jose.": "San Jose",
    "so, USE THE TOOL\tweather\u00a0 for\n a  b \n. \u2003": "a  b \n",
    "use the tool weather for .": "",
    "use the tool weather for ..": ".",
    "use the tool weather for x\n\ny.\n": "x\n\ny",
    "use the tool nothing, use the tool weather for x": "x",
    "use the tool weather for use the tool weather for x": "use the tool weather for x",
    "use the tool weather for": None,
    "use the tool weather for   ": None,
    "use the toolweather for x": None,
    f"use the tool {'w' * 65} for x": None,
}


@pytest.mark.parametrize(("text", "subject"), SUBJECTS.items(), ids=map(ascii, SUBJECTS))
async def test_subject_is_what_stands_after_for(
    serve: Serve, text: str, subject: str | None
) -> None:
    """Up to the end, but for blanks around it and one full stop; without one, there is no call."""
    caller = await serve(backend=EchoBackend())

    run = await caller.settled(await caller.start(text))

    action = run["required_action"]
    calls = action["submit_tool_outputs"]["tool_calls"] if action else []
    arguments = [json.loads(call["function"]["arguments"]) for call in calls]
    assert arguments == ([] if subject is None else [{"city": subject}])
