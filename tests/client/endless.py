"""A server whose answer never ends: pieces are sent until the client closes the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec

from tests.client.broadcaster import HEAD, frame
from tests.support import run_json

__all__ = ["BEGIN", "CHUNKED", "STREAM_HEAD", "EndlessServer"]

STREAM_HEAD = HEAD + b"\r\n"
CHUNKED = HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
BEGIN = frame("thread.run.created", run_json("in_progress"), "1-1")
"""The first event of a run that never ends."""

Pieces = Callable[[], Iterator[bytes]]


class EndlessServer:
    """Answers streams with pieces without end, and everything else about the run in JSON."""

    def __init__(self, pieces: Pieces, *, always: bool = False) -> None:
        """Send `pieces()` to each request for a stream; `always`: to every request."""
        self._pieces = pieces
        self._always = always
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.asked: list[str] = []
        """Method and last part of the path of each request."""
        self.closed = anyio.Event()
        """Set once the client has closed the connection of an endless answer."""

    @property
    def url(self) -> str:
        """Return the base URL."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split("\r\n")[0].split(" ")
            lengths = [line for line in head.lower().split("\r\n") if "content-length" in line]
            body = await reader.readexactly(int(lengths[0].split(":")[1]) if lengths else 0)
            path = target.partition("?")[0]
            self.asked.append(f"{method} {path.rpartition('/')[2]}")
            if self._always or b'"stream":true' in body or path.endswith("/stream"):
                await self._send_pieces(writer)
            else:
                writer.write(_json(self._answer(method, path)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _send_pieces(self, writer: asyncio.StreamWriter) -> None:
        try:
            for piece in self._pieces():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            self.closed.set()
            raise

    def _answer(self, method: str, path: str) -> Any:
        if path.endswith("/cancel"):
            return run_json("cancelling")
        return run_json("in_progress")


def _json(value: Any) -> bytes:
    body = msgspec.json.encode(value)
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
        "openai-runs-features: resume\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
