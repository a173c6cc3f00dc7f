"""Sending answers: how many bytes they hold, and for how long a client may not read them.

What lives here: the deadline for receiving data, the same for every connection, and the bound
on what unread answers hold together. What may not: the content of an answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web

from openai_runs._log_ids import LogIds
from openai_runs.config import MAX_UNSENT_BYTES, STOP_WRITE_TIMEOUT, WRITE_TIMEOUT
from openai_runs.server.api_errors import too_many_unsent

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

__all__ = ["Outgoing", "Reply"]

SLICE_BYTES: Final = 64 * 1024
"""Bytes written at once. An answer that is no larger is written whole and not counted."""

_LONGEST_INTERVAL: Final = 1.0
"""Seconds between two checks of the connections, at most."""
_SHORTEST_INTERVAL: Final = 0.01
"""Seconds between them, at least, however short the time-out is."""
_CHECKS: Final = 4
"""Checks within one time-out, at least."""

_logger = logging.getLogger("openai_runs.server")


class _Connection:
    """One connection: how much of an answer its client has not received, and for how long."""

    __slots__ = ("checks", "has_unread_body", "ids", "name", "unsent")

    def __init__(self) -> None:
        """Start with nothing written."""
        self.name = ""
        """What is written, for the log."""
        self.ids: LogIds = {}
        self.has_unread_body = False
        """Whether its client may still send a body that nobody reads."""
        self.unsent: float = math.inf
        self.checks = 0
        """Checks since it received something. Not seconds: an event loop that was busy for long
        must not be mistaken for a reader that receives nothing."""

    def progress(self, unsent: float = math.inf) -> None:
        """Restart the time-out."""
        self.checks = 0
        self.unsent = unsent


class Outgoing:
    """All that one application writes.

    No connection keeps bytes that its client receives none of for longer than the time-out: a timer
    compares, about once a second, the bytes that wait in each. It sees answers of any kind,
    of middlewares too, and costs an answer next to nothing.
    """

    def __init__(self, limit: int = MAX_UNSENT_BYTES, timeout: float = WRITE_TIMEOUT) -> None:
        """Start with no connection.

        Args:
            limit: Bytes that large answers may hold together until they are received.
            timeout: Seconds a reader may receive no data.
        """
        self.held = 0
        """Bytes that large answers hold now."""
        self._limit = limit
        self._timeout = timeout
        self._connections: dict[asyncio.Transport, _Connection] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False

    def begin(self, transport: asyncio.Transport | None, name: str, ids: LogIds) -> None:
        """Note that an answer begins, so that all before it was received."""
        if transport is None:  # the client has disconnected; writing raises
            return
        connection = self._connections.get(transport)
        if connection is None:
            # What is written counts as received only when the kernel has it: the next answer
            # of a pipeline, and the next slice, wait until nothing is left of the last one.
            transport.set_write_buffer_limits(high=0)
            connection = self._connections[transport] = _Connection()
            if self._timer is None:
                self._schedule()
        connection.name, connection.ids = name, ids
        connection.progress()

    def ensure_capacity(self, size: int, *, done: bool = False) -> None:
        """Refuse an answer of that size if the large ones hold too much already.

        One that is larger than the bound is sent if it is the only one.

        Args:
            size: Bytes of the answer.
            done: Whether what was asked for was done already.

        Raises:
            Refusal: It cannot be sent now.
        """
        if size > SLICE_BYTES and self.held and self.held + size > self._limit:
            raise too_many_unsent(self._limit, done=done)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count bytes while they are sent."""
        self.held += size
        try:
            yield
        finally:
            self.held -= size

    async def write(
        self, writer: AbstractStreamWriter, transport: asyncio.Transport | None, body: bytes
    ) -> None:
        """Write in slices, each once the reader has received the one before.

        Raises:
            ConnectionError: The reader has left, or was dropped.
        """
        view = memoryview(body)
        for begin in range(0, len(view), SLICE_BYTES):
            await writer.write(view[begin : begin + SLICE_BYTES])
            await writer.drain()
            connection = None if transport is None else self._connections.get(transport)
            if connection is not None:
                connection.progress()

    def mark_unread(self, transport: asyncio.Transport | None) -> None:
        """Note that the rest of a request is not read: stopping does not wait for it."""
        if transport is not None:
            self.begin(transport, "", {})
            self._connections[transport].has_unread_body = True

    def stop(self) -> None:
        """Wait for readers only shortly from now on."""
        self._stopping = True
        self._timeout = min(self._timeout, STOP_WRITE_TIMEOUT)
        for transport, connection in self._connections.items():
            if connection.has_unread_body:
                transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._schedule()

    def close(self) -> None:
        """Drop all connections that have not received everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for transport in self._connections:
            if transport.get_write_buffer_size():
                transport.abort()
        self._connections.clear()

    @property
    def _interval(self) -> float:
        return max(_SHORTEST_INTERVAL, min(self._timeout / _CHECKS, _LONGEST_INTERVAL))

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._check_all)

    def _check_all(self) -> None:
        for transport, connection in list(self._connections.items()):
            unsent = transport.get_write_buffer_size()
            if not unsent and transport.is_closing():
                del self._connections[transport]
            elif not unsent or unsent < connection.unsent:
                connection.progress(unsent or math.inf)
            else:
                connection.checks += 1
                if connection.checks * self._interval >= self._timeout:
                    self._drop(transport, connection)
        self._timer = None
        if self._connections:
            self._schedule()

    def _drop(self, transport: asyncio.Transport, connection: _Connection) -> None:
        level = logging.DEBUG if self._stopping else logging.WARNING
        words = "%s: a reader is dropped, it took no data for %g s"
        _logger.log(level, words, connection.name, self._timeout, extra=connection.ids)
        transport.abort()
        del self._connections[transport]


class Reply(web.Response):
    """A plain answer, JSON text; a large one is counted and written in slices."""

    def __init__(
        self,
        outgoing: Outgoing,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what is to be written."""
        super().__init__(status=status, body=body, headers=headers, content_type="application/json")
        self._outgoing = outgoing

    async def write_eof(self, data: bytes = b"") -> None:
        """Write the body."""
        body, request, writer = self._body, self._req, self._payload_writer
        if (
            isinstance(body, bytes)
            and len(body) > SLICE_BYTES
            and request is not None
            and writer is not None
            and not (self.compression or self._must_be_empty_body)
        ):
            with self._outgoing.holding(len(body)):
                try:
                    await self._outgoing.write(writer, request.transport, body)
                finally:
                    # aiohttp keeps the last answer of an idle connection.
                    self.body = None
        await super().write_eof(data)
