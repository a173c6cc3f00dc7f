"""A server that closes connections that it could keep costs no create, and is not asked twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient
from tests.support import SocketServer, receive, run_json


class ClosingServer(SocketServer):
    """Creates runs, and closes connections in its own way."""

    def __init__(
        self,
        close: Callable[[asyncio.StreamWriter, int], Awaitable[bool]],
        *,
        version: str = "HTTP/1.1",
        header: str = "",
    ) -> None:
        """`close` gets the writer and how many answers it has sent; True: it goes on."""
        super().__init__()
        self._close = close
        self._head = f"{version} 200 OK\r\nContent-Type: application/json\r\n{header}"
        self.runs: dict[str, list[Any]] = {}
        self.created = Counter[str]()
        """Runs by thread."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until this server's way to close says so."""
        for number in itertools.count(1):
            await self._answer(reader, writer)
            if not await self._close(writer, number):
                return

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await receive(reader)
        thread_id = request.path.split("/")[3]
        runs = self.runs.setdefault(thread_id, [])
        if request.method == "POST":
            self.created[thread_id] += 1
            metadata = request.json.get("metadata") or {}
            run = run_json(id=f"run_{thread_id}", thread_id=thread_id, metadata=metadata)
            runs.append(run)
        is_list = request.method == "GET" and request.path.endswith("/runs")
        page = {"object": "list", "data": runs, "has_more": False}
        text = json.dumps(page if is_list else runs[0]).encode()
        writer.write(f"{self._head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()


async def at_once(writer: asyncio.StreamWriter, answers: int) -> bool:
    """Close after each answer."""
    return False


async def soon(writer: asyncio.StreamWriter, answers: int) -> bool:
    """Close after each answer, when the client may have sent the next request."""
    for _ in range(5):
        await asyncio.sleep(0)
    return False


async def later(writer: asyncio.StreamWriter, answers: int) -> bool:
    """Close some milliseconds after each answer."""
    await asyncio.sleep(0.003)
    return False


async def reset(writer: asyncio.StreamWriter, answers: int) -> bool:
    """Reset the connection after each answer."""
    await asyncio.sleep(0.001)
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def keep(writer: asyncio.StreamWriter, answers: int) -> bool:
    """Keep each connection."""
    return True


async def create_all(server: ClosingServer, workers: int, creates: int) -> float:
    """Create one run on each of so many threads; return what is left of the retry budget."""
    numbers = iter(range(creates))
    async with AsyncClient(server.url, "k") as client:

        async def work() -> None:
            for number in numbers:
                run = await client.runs.create(f"thread_{number}", assistant_id="asst_1")
                assert run.thread_id == f"thread_{number}"

        with anyio.fail_after(50):
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work())
        return client._state.budget.tokens


WAYS: dict[str, dict[str, Any]] = {
    "at-once": {"close": at_once},
    "soon": {"close": soon},
    "later": {"close": later},
    "reset": {"close": reset},
    "with-a-header": {"close": at_once, "header": "Connection: close\r\n"},
    "http-1.0": {"close": at_once, "version": "HTTP/1.0"},
    "kept": {"close": keep},
}


@pytest.mark.parametrize(("workers", "creates"), [(1, 100), (20, 100), (100, 400)])
@pytest.mark.parametrize("way", WAYS)
async def test_no_create_fails_before_a_server_that_closes_after_every_answer(
    way: str, workers: int, creates: int
) -> None:
    """One of them may be lost, by which the client learns it; that one is verified."""
    async with ClosingServer(**WAYS[way]) as server:
        left = await create_all(server, workers, creates)

    assert left >= 90  # two retries at most
    assert len(server.created) == creates
    assert set(server.created.values()) == {1}


async def test_connections_are_used_again_where_the_server_keeps_them() -> None:
    """What is learnt of closing servers costs the others a few connections at the beginning."""
    async with ClosingServer(keep) as server:
        await create_all(server, 20, 400)

    assert server.accepted <= 60
