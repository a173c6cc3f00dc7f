"""The backend that follows a script: in order, to its end, or as a function says."""

from __future__ import annotations

import pytest

from openai_runs.server import Call, CallTools, Cut, Fail, Say, ScriptedBackend, ScriptedTurn
from tests.canaries import CANARY_PROMPT
from tests.server.conftest import Serve


async def test_script_is_followed_in_order_and_can_be_extended(serve: Serve) -> None:
    """Plain text is something to say; what comes after the end fails the run, and says why."""
    backend = ScriptedBackend(["One."])
    backend.add(Say("Two."))
    caller = await serve(backend=backend)

    runs = [await caller.settled(await caller.start()) for _ in range(3)]

    texts = [(await caller.messages(run))[-1]["content"][0]["text"]["value"] for run in runs[:2]]
    assert texts == ["One.", "Two."]
    assert runs[2]["last_error"]["message"] == "The script has no more turns."
    assert [request.question for request in backend.requests] == [CANARY_PROMPT] * 3


async def test_function_is_asked_each_time(serve: Serve) -> None:
    """It sees the request and never ends; turns cannot be added to it."""
    backend = ScriptedBackend(lambda request: request.question.upper())
    caller = await serve(backend=backend)

    for text in ("a", "b"):
        run = await caller.settled(await caller.start(text))
        message = (await caller.messages(run))[-1]
        assert message["content"][0]["text"]["value"] == text.upper()
    with pytest.raises(TypeError, match="takes no more turns"):
        backend.add("c")


PIECES: dict[str, tuple[ScriptedTurn, list[str]]] = {
    "whole": (Say("Sunny."), ["Sunny."]),
    "given": (Say(["Sun", "", "ny."]), ["Sun", "ny."]),
    "cut": (Say("Sunny.", chunk=4), ["Sunn", "y."]),
    "given and cut": (Say(["Sunny", "."], chunk=4, pause=0.001), ["Sunn", "y", "."]),
    "before a failure": (Fail(text=["Sun", "ny."]), ["Sun", "ny."]),
    "before a limit": (Cut(["Sun", "ny."]), ["Sun", "ny."]),
    "arguments": (CallTools([Call("f", "{}1234")], chunk=4), ["{}12", "34"]),
    "text and arguments": (CallTools([Call("f", "{}")], ["a", "b"]), ["a", "b", "{}"]),
    "no arguments": (CallTools([Call("f", "")], chunk=4), [""]),
}


@pytest.mark.parametrize("how", PIECES)
async def test_turn_is_said_in_the_pieces_it_is_given(serve: Serve, how: str) -> None:
    """A list as it is, and a text cut to size; what was said is the same."""
    turn, expected = PIECES[how]
    caller = await serve(turn)

    events = (await caller.start_stream()).events

    pieces = []
    for delta in (event.data["delta"] for event in events if event.name.endswith(".delta")):
        if "content" in delta:
            pieces.append(delta["content"][0]["text"]["value"])
        else:
            pieces.append(delta["step_details"]["tool_calls"][0]["function"]["arguments"])
    assert pieces == expected
