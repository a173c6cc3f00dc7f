"""A task that streams may be cancelled at any moment: nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Literal

import aiohttp
import anyio
import pytest

from openai_runs import AsyncClient, Run
from openai_runs.server import LocalServer, ScriptedBackend
from openai_runs.testing import RunsServer
from tests.e2e.streamed_run import turn_of

SEEDS = 30
LONGEST = 0.4
"""Seconds within which a run is cancelled; most of them take about as long."""
Reaction = Literal["leave", "cancel"]


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    """Yield a server whose model takes its time."""
    async with LocalServer(None, ScriptedBackend(partial(turn_of, pause=0.002))) as one:
        yield one


async def look_up(city: str) -> str:
    """Look a city up, which takes a while."""
    await anyio.sleep(0.03)
    return f"{city} is fine."


async def stream(client: AsyncClient, thread_id: str, reaction: Reaction) -> None:
    """Stream a run to its end."""
    assistant = await client.assistants.create(model="m")
    async with client.runs.stream(
        thread_id,
        assistant_id=assistant.id,
        additional_messages=[{"role": "user", "content": "60"}],
        tools=[look_up],
        on_cancel=reaction,
    ) as events:
        await events.until_done()


async def cancelled(
    client: AsyncClient, observer: AsyncClient, seed: int, reaction: Reaction
) -> list[Run]:
    """Return the run of a task that was cancelled after a random time; none if it made none."""
    thread = await observer.threads.create()
    task = asyncio.create_task(stream(client, thread.id, reaction))
    await asyncio.sleep(random.Random(seed).random() * LONGEST)
    done = task.done()
    task.cancel()
    await asyncio.wait([task])
    assert done or task.cancelled()
    runs = [run async for run in observer.runs.list(thread.id)]
    assert len(runs) <= 1
    return [run for run in runs if isinstance(run, Run)]


async def test_nothing_is_left_when_streams_are_cancelled(server: LocalServer) -> None:
    """No run goes on, no connection stays open, and no cancellation is swallowed."""
    async with aiohttp.ClientSession() as session:
        client = AsyncClient(server.url, session=session)
        async with AsyncClient(server.url) as observer:
            for seed in range(SEEDS):
                for run in await cancelled(client, observer, seed, "cancel"):
                    ended = await observer.runs.wait(run, timeout=30)
                    assert ended.is_terminal
        assert session.connector is not None
        assert not session.connector._acquired  # what aiohttp itself looks at on closing


async def test_runs_are_left_alone_when_their_streams_are_cancelled(server: LocalServer) -> None:
    """Each completes, once its tool call is answered."""
    async with AsyncClient(server.url) as client, AsyncClient(server.url) as observer:
        for seed in range(SEEDS // 2):
            for run in await cancelled(client, observer, seed, "leave"):
                result = await observer.runs.resume(
                    run.id, thread_id=run.thread_id, tools=[look_up], timeout=20
                )
                assert result.run.status == "completed"


async def test_run_is_cancelled_once_when_its_tool_is_cancelled(runs_server: RunsServer) -> None:
    """The tool's end and the end of the block are the same cancellation."""
    runs_server.call_tool("hang", {})
    begun = anyio.Event()

    async def hang() -> str:
        """Never answer."""
        begun.set()
        await anyio.sleep_forever()
        return ""

    async def work() -> None:
        async with AsyncClient(runs_server.url) as client:
            assistant = await client.assistants.create(model="m")
            thread = await client.threads.create()
            stream = client.runs.stream(
                thread.id, assistant_id=assistant.id, tools=[hang], on_cancel="cancel"
            )
            async with stream:
                await stream.until_done()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert len(runs_server.seen("POST", "runs/*/cancel")) == 1
