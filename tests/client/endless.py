"""A server whose answer never ends: pieces are sent until the client closes the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import msgspec

from tests.client.broadcaster import HEAD, frame
from tests.support import SocketServer, receive, run_json

__all__ = ["BEGIN", "CHUNKED", "STREAM_HEAD", "EndlessServer"]

STREAM_HEAD = HEAD + b"\r\n"
CHUNKED = HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
BEGIN = frame("thread.run.created", run_json("in_progress"), "1-1")
"""The first event of a run that never ends."""

Pieces = Callable[[], Iterator[bytes]]


class EndlessServer(SocketServer):
    """Answers streams with pieces without end, and everything else about the run in JSON."""

    def __init__(self, pieces: Pieces, *, always: bool = False) -> None:
        """Send `pieces()` to each request for a stream; `always`: to every request."""
        super().__init__()
        self._pieces = pieces
        self._always = always
        self.asked: list[str] = []
        """Method and last part of the path of each request."""
        self.closed = anyio.Event()
        """Set once the client has closed the connection of an endless answer."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        request = await receive(reader)
        self.asked.append(f"{request.method} {request.path.rpartition('/')[2]}")
        is_stream = b'"stream":true' in request.body or request.path.endswith("/stream")
        if self._always or is_stream:
            await self._send_pieces(writer)
        else:
            writer.write(_json(self._answer(request.path)))
            await writer.drain()

    async def _send_pieces(self, writer: asyncio.StreamWriter) -> None:
        try:
            for piece in self._pieces():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            self.closed.set()
            raise

    def _answer(self, path: str) -> Any:
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
