"""A model endpoint whose answers follow from the question, and take so long that kills hit them.

A question is `say KEY PIECES`, or `tool KEY PIECES`: then the function `look_up` is called first;
`hold KEY PIECES` stops in the middle until it is let go. The pieces are all different, so a text
that is cut, doubled or another's is told from the right one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec
from aiohttp import web

__all__ = ["TOOL", "Model", "question", "serve_model", "text_of", "tool_output"]

TOOL: Final = "look_up"
_PAUSES: Final = (0.01, 0.05, 0.15)
"""Seconds between two pieces; a question has one of them."""


def question(key: str, pieces: int, *, calls: bool = False) -> str:
    """Return what the user says."""
    return f"{'tool' if calls else 'say'} {key} {pieces}"


def tool_output(name: str) -> str:
    """Return what the function says."""
    return f"{name} is fine"


def pieces_of(asked: str) -> list[str]:
    """Return the answer to this question, in pieces."""
    kind, key, count = asked.split()
    first = [f"{tool_output(key)}. "] if kind == "tool" else []
    return first + [f"{key}:{number} " for number in range(int(count))]


def text_of(asked: str) -> str:
    """Return the whole answer to this question."""
    return "".join(pieces_of(asked))


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    told = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "chaos",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }
    return b"data: " + msgspec.json.encode(told) + b"\n\n"


def _call(key: str) -> list[bytes]:
    function = {"name": TOOL, "arguments": ""}
    call: dict[str, Any] = {"index": 0, "id": f"call_{key}", "type": "function"}
    arguments = msgspec.json.encode({"name": key}).decode()
    return [
        _chunk({"role": "assistant", "tool_calls": [{**call, "function": function}]}),
        *(
            _chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
            for part in (arguments[:5], arguments[5:])
        ),
    ]


def _said(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


class Model:
    """The endpoint."""

    def __init__(self) -> None:
        """Hold up who is to be held up."""
        self.url = ""
        self.let_go = asyncio.Event()
        """Set once those that are held up go on."""
        self.asked: Counter[str] = Counter()
        """How often each question was asked."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        messages = msgspec.json.decode(await request.read())["messages"]
        last = max(index for index, one in enumerate(messages) if one["role"] == "user")
        asked = _said(messages[last]).splitlines()[-1]  # those of runs without an answer come first
        self.asked[asked] += 1
        kind, key, _ = asked.split()
        answered = any(one["role"] == "tool" for one in messages[last:])
        calls = kind == "tool" and not answered
        if calls:
            chunks, finish = _call(key), "tool_calls"
        else:
            chunks, finish = [_chunk({"content": piece}) for piece in pieces_of(asked)], "stop"
        pause = random.Random(asked).choice(_PAUSES)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        with suppress(ConnectionError):  # who asked is gone
            await response.prepare(request)
            for number, chunk in enumerate(chunks):
                if kind == "hold" and number == len(chunks) // 2:
                    await self.let_go.wait()
                await response.write(chunk)
                await asyncio.sleep(pause)
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            await response.write(_chunk({}, finish, usage=usage) + b"data: [DONE]\n\n")
            await response.write_eof()
        return response


@asynccontextmanager
async def serve_model() -> AsyncIterator[Model]:
    """Serve it on a free port."""
    model = Model()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", model.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        model.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield model
    finally:
        await runner.cleanup()
