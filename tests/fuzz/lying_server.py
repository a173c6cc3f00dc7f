"""A server on a real socket that sends lies in place of some of its answers."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from openai_runs import RunResult
from tests.fuzz.honest_server import TEXT, HonestServer
from tests.fuzz.lies import Lie, lie, whole
from tests.support import Received

__all__ = ["LyingServer", "check", "lying_server"]


class LyingServer:
    """Answers one request on each connection, as the seed has it."""

    def __init__(self, chance: Random, honest: HonestServer, lies: set[int], share: float) -> None:
        """Lie about the requests of these numbers, and about a share of the others."""
        self._chance = chance
        self._honest = honest
        self._lies = lies
        self._share = share
        self.url = ""
        """The base URL."""
        self.sent: list[Lie] = []
        """The lies that were sent."""
        self.asked: list[str] = []
        """Method and path of each request."""

    async def serve(self, stream: SocketStream) -> None:
        """Answer the request of one connection."""
        async with stream:
            with suppress(anyio.IncompleteRead, anyio.BrokenResourceError):  # the client went away
                await self._answer(stream)

    async def _answer(self, stream: SocketStream) -> None:
        answer = self._choose(await _receive(stream))
        for piece in filter(None, answer.pieces):
            await stream.send(piece)
        if answer.ending == "hang":
            await anyio.sleep_forever()
        if answer.ending == "reset":
            raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _choose(self, request: Received) -> Lie:
        number = len(self.asked)
        self.asked.append(f"{request.method} {request.path}")
        truth = self._honest.answer(request)
        if number not in self._lies and self._chance.random() >= self._share:
            return whole(truth)
        self.sent.append(lie(self._chance, truth))
        return self.sent[-1]


@asynccontextmanager
async def lying_server(
    chance: Random, honest: HonestServer, lies: set[int], share: float
) -> AsyncIterator[LyingServer]:
    """Listen on a free port of the loopback; close everything at the end, what hangs included."""
    server = LyingServer(chance, honest, lies, share)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        server.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/v1"
        group.start_soon(listener.serve, server.serve)
        yield server
        group.cancel_scope.cancel()


def check(server: LyingServer, result: Any) -> None:
    """Fail if a completed run has less than its text, unless the lie was about the text."""
    result, *pieces = result if isinstance(result, tuple) else [result]
    if not isinstance(result, RunResult) or result.run.status != "completed":
        return
    if not any(one.may_change_text for one in server.sent):
        assert result.text == TEXT, f"completed with the text {result.text[:200]!r}"
    if all(one.keeps_bytes for one in server.sent):
        assert pieces in ([], [TEXT]), f"completed with the pieces {pieces}"


async def _receive(stream: SocketStream) -> Received:
    reader = BufferedByteReceiveStream(stream)
    head = (await reader.receive_until(b"\r\n\r\n", 1 << 20)).decode("latin-1")
    method, target, _ = head.split(" ", 2)
    length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
    body = await reader.receive_exactly(int(length[1]) if length else 0)
    parts = urlsplit(target)
    return Received(method, parts.path, parse_qs(parts.query), {}, body)
