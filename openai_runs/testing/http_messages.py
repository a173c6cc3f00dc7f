"""HTTP/1.1 as bytes: heads and bodies of messages, read without changing them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from anyio import EndOfStream

if TYPE_CHECKING:
    from anyio.streams.buffered import BufferedByteReceiveStream

__all__ = ["Body", "Head", "Piece", "read_head"]

_MAX_HEAD: Final = 1 << 20  # bytes; no server or client of this protocol comes near
_MAX_PIECE: Final = 1 << 16  # bytes


class Head(NamedTuple):
    """The first line and the headers of a request or an answer."""

    raw: bytes
    """As it travels, the empty line at its end included."""
    first_line: str
    headers: list[tuple[str, str]]

    @property
    def method(self) -> str:
        """Return the method of a request."""
        return self.first_line.split(" ")[0]

    @property
    def path(self) -> str:
        """Return the path of a request, without its query."""
        return urlsplit(self.first_line.split(" ")[1]).path

    @property
    def query(self) -> dict[str, str]:
        """Return the query of a request."""
        query = urlsplit(self.first_line.split(" ")[1]).query
        return dict(parse_qsl(query, keep_blank_values=True))

    @property
    def status(self) -> int:
        """Return the status of an answer."""
        return int(self.first_line.split(" ")[1])

    @property
    def is_stream(self) -> bool:
        """Tell whether this is the head of server-sent events."""
        return self.header("content-type").partition(";")[0].strip() == "text/event-stream"

    @property
    def is_chunked(self) -> bool:
        """Tell whether the body comes in chunks."""
        return "chunked" in self.header("transfer-encoding")

    def header(self, name: str) -> str:
        """Return the value of the header, its letters lower case; empty if there is none."""
        return ",".join(v for n, v in self.headers if n.lower() == name).lower()

    def closing(self) -> Self:
        """Return this head with `Connection: close`."""
        return self._replace(raw=self.raw[:-2] + b"Connection: close\r\n\r\n")


async def read_head(stream: BufferedByteReceiveStream) -> Head:
    """Return the next head of the connection.

    Raises:
        IncompleteRead: The connection closed before, or in the middle of it.
        ValueError: It is something else.
    """
    # No deadline: between two messages a connection may be idle as long as both ends like.
    raw = await stream.receive_until(b"\r\n\r\n", _MAX_HEAD)
    first_line, *lines = raw.decode("latin-1").split("\r\n")
    if len(first_line.split(" ")) < 2:
        message = f"{first_line[:80]!r} begins no message of HTTP/1.1"
        raise ValueError(message)
    pairs = [line.partition(":") for line in lines]
    headers = [(name.strip(), value.strip()) for name, _, value in pairs]
    return Head(raw + b"\r\n\r\n", first_line, headers)


class Piece(NamedTuple):
    """Some bytes of a body."""

    raw: bytes
    payload: bool
    """False: a chunk's size, or what ends it."""


class Body:
    """The body behind a head, read piece by piece as it arrives."""

    def __init__(
        self, stream: BufferedByteReceiveStream, *, length: float, chunked: bool = False
    ) -> None:
        """Take the connection; a length of `math.inf` means: until it closes."""
        self.chunked = chunked
        self.until_close = length == math.inf
        self._stream = stream
        self._left = 0 if chunked else length
        """Payload bytes to come, in this chunk if there are chunks."""
        self._in_chunk = False
        self._last_chunk = not chunked

    @classmethod
    def of_request(cls, stream: BufferedByteReceiveStream, head: Head) -> Self:
        """Return the body behind the head of a request."""
        return cls(stream, length=int(head.header("content-length") or 0), chunked=head.is_chunked)

    @classmethod
    def of_answer(cls, stream: BufferedByteReceiveStream, head: Head, method: str) -> Self:
        """Return the body behind the head of the answer to a request of this method."""
        if method == "HEAD" or head.status in (204, 304):
            return cls(stream, length=0)
        if head.is_chunked:
            return cls(stream, length=0, chunked=True)
        return cls(stream, length=float(head.header("content-length") or math.inf))

    async def read(self, limit: float = math.inf) -> Piece | None:
        """Return what comes next, at most `limit` bytes of payload; None: it is complete.

        Raises:
            EndOfStream: The connection closed too early.
            IncompleteRead: The connection closed too early, between two pieces of payload.
        """
        # No deadline: how long a server may be silent is what tests find out about clients.
        if self._left:
            return await self._read_payload(int(min(self._left, limit, _MAX_PIECE)))
        if self._in_chunk:
            self._in_chunk = False
            return Piece(await self._stream.receive_exactly(2), payload=False)
        if self._last_chunk:
            return None
        return await self._read_size()

    async def _read_payload(self, limit: int) -> Piece | None:
        try:
            data = await self._stream.receive(limit)
        except EndOfStream:
            if not self.until_close:
                raise
            self._left = 0
            return None
        self._left -= len(data)
        return Piece(data, payload=True)

    async def _read_size(self) -> Piece:
        line = await self._read_line()
        self._left = int(line.partition(b";")[0], 16)
        self._in_chunk = self._left > 0
        self._last_chunk = not self._in_chunk
        while self._last_chunk and not line.endswith(b"\r\n\r\n"):
            line += await self._read_line()  # trailers, if any, and the empty line
        return Piece(line, payload=False)

    async def _read_line(self) -> bytes:
        return await self._stream.receive_until(b"\r\n", _MAX_HEAD) + b"\r\n"
