"""HTTP/1.1 on a bare `asyncio.Protocol`: a server that costs little beside any client.

Standard library only. Each request is handed whole to one function, which returns the bytes
to send back, or None if it answers by itself. The process ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Connection", "Handler", "Request", "answer", "serve"]

_REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}


class Request(NamedTuple):
    """One request."""

    method: bytes
    path: bytes
    query: bytes
    head: bytes
    """The request line and the headers."""
    body: bytes

    def header(self, name: str) -> str:
        """Return a header's value, or an empty text."""
        head = self.head.lower()
        began = head.find(b"\r\n" + name.lower().encode() + b":")
        if began < 0:
            return ""
        began = head.index(b":", began) + 1
        return self.head[began : head.find(b"\r\n", began)].strip().decode()


class Connection(asyncio.Protocol):
    """One connection, kept alive; requests that come together are answered in turn."""

    def __init__(self, handler: Handler) -> None:
        """Hand each request to `handler`."""
        self._handler = handler
        self._buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._buffer += data
        while (request := self._next()) is not None:
            reply = self._handler(request, self)
            if reply is not None and not self.transport.is_closing():
                self.transport.write(reply)

    def _next(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head, length = self._buffer[: end + 2], 0
        if not head.startswith(b"GET "):
            name = head.lower().find(b"\r\ncontent-length:")
            if name >= 0:
                length = int(head[name + 17 : head.index(b"\r\n", name + 2)])
        stop = end + 4 + length
        if len(self._buffer) < stop:
            return None
        body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
        method, target, _ = head[: head.index(b"\r\n")].split(b" ")
        path, _, query = target.partition(b"?")
        return Request(method, path, query, head, body)


Handler = Callable[[Request, Connection], "bytes | None"]


def answer(body: bytes, status: int = 200, headers: str = "") -> bytes:
    """Return an answer of JSON; `headers` are whole lines."""
    head = (
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Other')}\r\nContent-Type: application/json\r\n"
        f"x-request-id: req_1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def serve(handler: Handler) -> None:
    """Print the address, and serve until standard input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(handler), "127.0.0.1", 0, backlog=4096, start_serving=True
    )
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await closed.wait()
