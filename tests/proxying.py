"""Both ends of a fault proxy as bare bytes: an upstream that plays tapes, a client that reads."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["TAPES", "TEXT", "Caller", "Ended", "Upstream", "calling", "payload_of", "upstream"]

TEXT = (
    "event: one\ndata: 1\n\n: comment\n\nevent: two\ndata: ä\n\nevent: done\ndata: [DONE]\n\n"
).encode()
"""What the tapes say, as event streams do."""

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
_SPLITS = [0, 1, 20, 21, 50, len(TEXT)]
_CHUNKS = b"".join(
    b"%x;why=not\r\n%b\r\n" % (end - start, TEXT[start:end])
    for start, end in zip(_SPLITS, _SPLITS[1:], strict=False)
)

TAPES = {
    "chunked": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKS + b"0\r\nX-End: 1\r\n\r\n",
    "length": _HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(TEXT), TEXT),
    "close": _HEAD + b"Connection: close\r\n\r\n" + TEXT,
}
"""Whole answers, by how the end of the body is known."""


class Upstream:
    """A server that answers each request with the next tape; the last is played for ever."""

    def __init__(self, tapes: list[bytes]) -> None:
        """Take the tapes; those that say so close the connection."""
        self._tapes = tapes
        self.heads: list[bytes] = []
        """Of all requests."""
        self.asked = asyncio.Event()
        """Set at the first request."""
        self.deserted = asyncio.Event()
        """Set while no connection is open."""
        self.deserted.set()
        self._open = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._open += 1
        self.deserted.clear()
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the proxy has closed
        finally:
            writer.close()
            self._open -= 1
            if not self._open:
                self.deserted.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        await reader.readexactly(int(length[1]) if length else 0)
        if b"transfer-encoding: chunked" in head.lower():
            await reader.readuntil(b"0\r\n\r\n")
        tape = self._tapes.pop(0) if len(self._tapes) > 1 else self._tapes[0]
        self.heads.append(head)
        self.asked.set()
        writer.write(tape)
        await writer.drain()
        return b"Connection: close" not in tape


@asynccontextmanager
async def upstream(*tapes: bytes) -> AsyncIterator[Upstream]:
    """Serve the tapes on a free port."""
    made = Upstream(list(tapes))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()
        await made.deserted.wait()  # each connection has seen its other end close


class Ended(NamedTuple):
    """What came until the connection ended."""

    raw: bytes
    how: str
    """`FIN` or `RST`."""


class Caller:
    """A client's end of a connection."""

    def __init__(self, end: socket.socket) -> None:
        """Take the connected socket."""
        self._end = end
        self._loop = asyncio.get_running_loop()
        self.reads = 0
        """How many reads it took so far."""

    async def ask(self, line: str = "GET /v1/events", headers: str = "", body: bytes = b"") -> None:
        """Send a request."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}{headers}\r\n".encode()
        await self._loop.sock_sendall(self._end, head + body)

    async def send(self, raw: bytes) -> None:
        """Send these bytes."""
        await self._loop.sock_sendall(self._end, raw)

    async def read(self, count: int) -> bytes:
        """Return so many bytes."""
        raw = b""
        while len(raw) < count:
            raw += (piece := await self._loop.sock_recv(self._end, count - len(raw)))
            self.reads += 1
            assert piece, f"closed after {raw!r}"
        return raw

    async def read_all(self) -> Ended:
        """Return what comes until the connection ends."""
        pieces: list[bytes] = []
        while True:
            try:
                piece = await self._loop.sock_recv(self._end, 65536)
            except ConnectionResetError:
                return Ended(b"".join(pieces), "RST")
            if not piece:
                return Ended(b"".join(pieces), "FIN")
            pieces.append(piece)


@asynccontextmanager
async def calling(url: str) -> AsyncIterator[Caller]:
    """Connect to the host and port of the URL."""
    with socket.socket() as end:
        end.setblocking(False)
        parts = urlsplit(url)
        address = (parts.hostname, parts.port)
        await asyncio.get_running_loop().sock_connect(end, address)
        yield Caller(end)


def payload_of(raw: bytes) -> bytes:
    """Return the body of one answer, whole or cut, without chunk sizes."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    payload = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        payload += rest[:length]
        body = rest[length + 2 :] if length else b""
    return payload
