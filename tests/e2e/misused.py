"""Wrong uses of the client in Python, made for real; `mistakes.txt` has what is said of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from openai_runs import AsyncClient
from openai_runs.testing import RunsServer
from tests.e2e.mistaken import Scene, start

__all__ = ["MISUSES"]


async def stream_awaited(scene: Scene) -> None:
    _, client = await scene.server()
    stream: Any = client.runs.stream("thread_1", assistant_id="asst_1")
    await stream


async def stream_in_a_plain_for(scene: Scene) -> None:
    _, client = await scene.server()
    stream: Any = client.runs.stream("thread_1", assistant_id="asst_1")
    for _event in stream:
        break


async def stream_read_again(scene: Scene) -> None:
    _, client = await scene.server()
    thread_id, assistant_id = await start(client)
    async with client.runs.stream(thread_id, assistant_id=assistant_id) as stream:
        async for _event in stream:
            break
    async for _event in stream:
        break


async def list_in_a_plain_for(scene: Scene) -> None:
    _, client = await scene.server()
    runs: Any = client.runs.list("thread_1")
    for _run in runs:
        break


async def await_forgotten(scene: Scene) -> None:
    _, client = await scene.server()
    run: Any = client.runs.retrieve("run_1", thread_id="thread_1")
    try:
        _ = run.status
    finally:
        run.close()  # which Python would warn of


async def client_in_a_plain_with(scene: Scene) -> None:
    server, _ = await scene.server()
    client: Any = AsyncClient(server.url)
    with client:
        pass


async def client_after_close(scene: Scene) -> None:
    server = await scene.enter(RunsServer())
    async with AsyncClient(server.url) as client:
        await client.threads.create()
    await client.threads.create()


async def client_in_another_loop(scene: Scene) -> None:
    _, client = await scene.server()
    await client.threads.create()

    def use() -> None:
        asyncio.run(_create(client))

    await asyncio.to_thread(use)


async def _create(client: AsyncClient) -> None:
    await client.threads.create()


_ALL: Final[list[Callable[[Scene], Awaitable[None]]]] = [
    stream_awaited, stream_in_a_plain_for, stream_read_again, list_in_a_plain_for, await_forgotten,
    client_in_a_plain_with, client_after_close, client_in_another_loop,
]  # fmt: skip
MISUSES: Final = {each.__name__.replace("_", " "): each for each in _ALL}
"""What is used in a wrong way, and how."""
