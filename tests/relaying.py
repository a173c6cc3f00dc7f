"""What tests of the relay stand on: a model that waits for the test, and web servers."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import uvicorn
from aiohttp import web
from anyio.lowlevel import checkpoint

from openai_runs import AsyncClient, Run
from openai_runs._protocol.sse import Frame, SSEParser
from openai_runs.server import Finish, LocalServer, ModelEvent, ModelRequest, TextDelta
from tests.canaries import CANARY_KEY

__all__ = [
    "INSTRUCTIONS",
    "Paced",
    "frames_of",
    "paced",
    "serve_aiohttp",
    "serve_asgi",
    "started",
    "text_of",
    "until_text",
]

INSTRUCTIONS = "The launch code is 0000."
"""What no browser is to see."""


class Paced:
    """A model that says its first words, waits until the test lets it go on, and says the rest."""

    def __init__(self, before: Iterable[str] = ("Hel", "lo "), after: Iterable[str] = ("you",)):
        """Keep the words."""
        self._before, self._after = list(before), list(after)
        self.go_on = anyio.Event()

    @property
    def text(self) -> str:
        """Return all it says."""
        return "".join([*self._before, *self._after])

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer one model call."""
        for word in self._before:
            yield TextDelta(word)
        await self.go_on.wait()
        for word in self._after:
            yield TextDelta(word)
        yield Finish()


async def started(client: AsyncClient, **arguments: Any) -> Run:
    """Return a run on a thread of its own, with something to hide."""
    assistant = await client.assistants.create(model="m", instructions=INSTRUCTIONS)
    arguments.setdefault("metadata", {"price": "secret"})
    return await client.threads.create_and_run(assistant_id=assistant.id, **arguments)


def frames_of(body: bytes | Iterable[bytes]) -> list[Frame]:
    """Return what a browser reads in these bytes."""
    return SSEParser().feed(body if isinstance(body, bytes) else b"".join(body))


def text_of(frames: Iterable[Frame]) -> str:
    """Return the deltas' text."""
    found = [one for one in frames if one.event == "thread.message.delta"]
    parts = [part for one in found for part in msgspec.json.decode(one.data)["delta"]["content"]]
    return "".join(part["text"]["value"] for part in parts)


async def until_text(frames: AsyncIterable[bytes], text: str) -> bytes:
    """Return what has come once the deltas say `text`."""
    body = b""
    async for more in frames:
        body += more
        if text_of(frames_of(body)) == text:
            return body
    message = f"the frames ended before {text!r}"
    raise AssertionError(message)


@asynccontextmanager
async def paced(model: Paced) -> AsyncIterator[AsyncClient]:
    """Open a server with this model, and a client of it."""
    async with (
        LocalServer(backend=model) as server,
        AsyncClient(server.url, api_key=CANARY_KEY) as client,
    ):
        yield client


@asynccontextmanager
async def serve_asgi(app: Any, *, force: bool = True) -> AsyncIterator[str]:
    """Serve an ASGI application as its users do, and yield its URL; `force` ends it at once."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with _running(server, listener, force):
            yield url


@asynccontextmanager
async def _running(
    server: uvicorn.Server, listener: socket.socket, force: bool
) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        while not server.started:
            await checkpoint()
        try:
            yield
        finally:
            server.should_exit, server.force_exit = True, force


@asynccontextmanager
async def serve_aiohttp(app: web.Application) -> AsyncIterator[str]:
    """Serve an aiohttp application, and yield its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        await web.SockSite(runner, listener).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()
