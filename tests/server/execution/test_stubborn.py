"""A backend that does not let itself be cancelled cannot keep the server open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anyio
import pytest

from openai_runs.server import Finish, LocalServer, ModelEvent, ModelRequest, TextDelta
from tests.databases import Database
from tests.server.support import Caller


class Stubborn:
    """Swallows every cancellation until it is let go; then it wants to answer all the same."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.free = asyncio.Event()

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Hold on."""
        self.asked.set()
        while not self.free.is_set():
            try:
                await self.free.wait()
            except asyncio.CancelledError:
                continue
        yield TextDelta("Too late.")
        yield Finish()


class Shielded(Stubborn):
    """Waits where no cancellation reaches it."""

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Hold on."""
        self.asked.set()
        with anyio.CancelScope(shield=True):
            await self.free.wait()
        yield TextDelta("Too late.")
        yield Finish()


@pytest.mark.parametrize("drains", [True, False], ids=["drained", "closed"])
@pytest.mark.parametrize("kind", [Stubborn, Shielded])
async def test_server_closes_without_a_backend_that_holds_on(
    kind: type[Stubborn],
    drains: bool,
    tmp_path: Path,
    database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log names the run; the next server carries it out."""
    backend = kind()
    server = LocalServer(database(tmp_path / "runs.db"), backend)
    await server.start()
    (root,) = [t for t in asyncio.all_tasks() if t.get_name() == "openai_runs.engine"]
    async with aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        run = await caller.start("Hello")
        await backend.asked.wait()
        with anyio.fail_after(30):
            if drains:
                await server.drain(0)
            await server.aclose()
        async with LocalServer(database(tmp_path / "runs.db")) as following:
            caller = Caller(session, following.url)
            ended = await caller.settled(run)
            backend.free.set()
            with anyio.fail_after(20):
                await asyncio.wait([root])
            messages = await caller.messages(run)

    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    ids = {"run_id": run["id"], "thread_id": run["thread_id"]}
    assert [ids.items() <= vars(record).items() for record in errors] == [True]
    assert [record.getMessage() for record in errors] == [
        f"run {run['id']} is given up: its backend does not let itself be cancelled"
    ]
    assert ended["status"] == "completed"
    assert [m["content"][0]["text"]["value"] for m in messages] == ["Hello", "Hello"]
