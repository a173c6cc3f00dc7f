"""The backend that follows a script: in order, to its end, or as a function says."""

from __future__ import annotations

import pytest

from openai_runs.server import Say, ScriptedBackend
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
    assert [request.question for request in backend.requests] == ["Hello"] * 3


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
