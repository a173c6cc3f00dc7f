"""Texts and keys of messages that cannot be stored or sent on: an error status for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openai_runs import APIStatusError
from openai_runs.config import MAX_REQUEST_BYTES
from openai_runs.server import ScriptedBackend
from openai_runs.web import Chat, InvalidTextError, error_response
from tests.web.serving import serve_chat


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ud800", id="high"),
        pytest.param("\udfff!", id="low"),
        pytest.param("half of it: \ud83d", id="cut-emoji"),
        pytest.param("\udc4d\ud83d", id="swapped"),
    ],
)
async def test_text_with_half_a_surrogate_pair_is_rejected(text: str, serve: Any) -> None:
    """A 400 before anything is stored; the next message is answered."""
    async with serve(ScriptedBackend(["fine"])) as site:
        browser = site.browser()
        async with browser.send(text) as response:
            error = (await response.json())["error"]
        history = await browser.history()
        seen = await browser.ask("\U0001f44d")

    assert (response.status, error["code"]) == (400, "invalid_text")
    assert error["message"] == "The message is no valid text."
    assert history == {"messages": [], "before": None, "waiting": []}
    assert seen[-1].event == "done"


async def test_send_raises_for_half_a_surrogate_pair_and_takes_any_key(
    tmp_path: Path,
) -> None:
    """The key is only hashed; aiohttp reads header bytes that are no UTF-8 as surrogates."""
    async with serve_chat("aiohttp", ScriptedBackend(["fine"]), tmp_path) as site:
        chat: Chat = site.chat
        with pytest.raises(InvalidTextError):
            await chat.send("ada", "\ud800")
        frames = [one async for one in await chat.send("ada", "1", idempotency_key="\udcff")]

    assert frames[-1].endswith(b"event: done\ndata: [DONE]\n\n")


async def test_text_above_the_limit_of_the_server_is_too_long(tmp_path: Path) -> None:
    """A 413 that says so, where the application itself has no limit."""
    async with serve_chat("fastapi", ScriptedBackend(["fine"]), tmp_path) as site:
        with pytest.raises(APIStatusError) as raised:
            await site.chat.send("ada", "x" * MAX_REQUEST_BYTES)
        answer = error_response(raised.value)

    assert answer.status == 413
    assert b"The message is too long." in answer.body
