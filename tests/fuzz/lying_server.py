"""A server on a real socket that sends lies in place of some of its answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from random import Random
from types import TracebackType
from typing import Self

from tests.fuzz.honest_server import HonestServer
from tests.fuzz.lies import Lie, lie, whole
from tests.support import receive

__all__ = ["LyingServer"]

_TURNS = 5
"""Turns of the event loop in which a connection that was accepted has its task."""


class LyingServer:
    """Answers each connection's request, as the seed has it."""

    def __init__(self, chance: Random, honest: HonestServer, lies: set[int], share: float) -> None:
        """Lie about the requests of these numbers, and about a share of the others."""
        self._chance = chance
        self._honest = honest
        self._lies = lies
        self._share = share
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.sent: list[Lie] = []
        """The lies that were sent."""
        self.asked: list[str] = []
        """Method and path of each request."""

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
        """Close everything, hanging connections included."""
        assert self._server is not None
        self._server.close()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the case is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await receive(reader)
        self.asked.append(f"{request.method} {request.path}")
        number, self._count = self._count, self._count + 1
        truth = self._honest.answer(request)
        answer = whole(truth)
        if number in self._lies or self._chance.random() < self._share:
            answer = lie(self._chance, truth)
            self.sent.append(answer)
        for piece in answer.pieces:
            writer.write(piece)
            if len(answer.pieces) > 1:
                await asyncio.sleep(0)
                await writer.drain()
        await writer.drain()
        if answer.ending == "hang":
            await asyncio.Event().wait()
        if answer.ending == "reset":
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
