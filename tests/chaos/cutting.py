"""A TCP proxy before PostgreSQL that can be cut: connections end, or say nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

__all__ = ["Cut", "Cutter", "cutting"]

Cut = Literal["closed", "silent", "silent, then closed"]


class Cutter:
    """The proxy."""

    def __init__(self, port: int) -> None:
        """Forward to this port of loopback."""
        self._to = port
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._ended = asyncio.Event()
        self._ended.set()
        self._closed = False
        self._flows = asyncio.Event()
        self._flows.set()

    def cut(self, how: Cut) -> None:
        """Let nothing through any more."""
        if how == "closed":
            self._closed = True
            self._abort()
        else:
            self._flows.clear()

    def mend(self, how: Cut) -> None:
        """Let everything through again; what was held comes late, if the connection stays."""
        if how == "silent, then closed":
            self._abort()
        self._closed = False
        self._flows.set()

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        if self._closed:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, up_writer}
        self._ended.clear()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, up_writer))
                group.create_task(self._pass(up_reader, writer))
        except* OSError:
            pass
        finally:
            self._open -= {writer, up_writer}
            if not self._open:
                self._ended.set()
            writer.transport.abort()
            up_writer.transport.abort()

    async def aclose(self) -> None:
        """End all connections."""
        self.cut("closed")
        self._flows.set()
        await self._ended.wait()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        if not writer.is_closing():
            with suppress(OSError):
                writer.write_eof()


@asynccontextmanager
async def cutting(port: int) -> AsyncIterator[Cutter]:
    """Serve such a proxy before a port of loopback."""
    cutter = Cutter(port)
    server = await asyncio.start_server(cutter.carry, "127.0.0.1", 0)
    cutter.port = server.sockets[0].getsockname()[1]
    try:
        yield cutter
    finally:
        server.close()
        await cutter.aclose()
