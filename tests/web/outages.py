"""A way to the server that a test closes and opens again, while runs go on behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import anyio

__all__ = ["Way", "way_to"]


class Way:
    """Connections to one server, each ended where the way is closed."""

    def __init__(self, url: str) -> None:
        """Note where it leads."""
        self.url = ""
        self.rejected = 0
        """Connections that were reset as soon as they were open."""
        self._port = urlsplit(url).port
        self._is_open = True
        self._ends: set[asyncio.StreamWriter] = set()

    def close(self) -> None:
        """Reset all connections, and those to come."""
        self._is_open = False
        for end in self._ends:
            end.transport.abort()

    def open(self) -> None:
        """Let new connections through."""
        self._is_open = True

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        if not self._is_open:
            self.rejected += 1
            to_client.transport.abort()
            return
        server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        ends = {to_client, to_server}
        self._ends |= ends
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_carry, client, to_server, tasks.cancel_scope)
                tasks.start_soon(_carry, server, to_client, tasks.cancel_scope)
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scope: anyio.CancelScope
) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    scope.cancel()


@asynccontextmanager
async def way_to(url: str) -> AsyncIterator[Way]:
    """Open a way to a server."""
    way = Way(url)
    server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    way.url = urlsplit(url)._replace(netloc=address).geturl()
    try:
        yield way
    finally:
        way.close()
        server.close()
