"""Calls that are over leave nothing behind, in the client or in the server."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from aiohttp import web

from openai_runs import AsyncClient
from openai_runs._client.tools.json_schema import ObjectSchema
from openai_runs.server import ApiRunner, EchoBackend, LocalServer, create_app
from openai_runs.testing import RunsServer
from tests.soak.client import KINDS, Caller

PACKAGE = "openai_runs"
CALLS = 6


def ours() -> Counter[str]:
    """Return how many objects there are of each class of this package.

    Schemas apart: 256 are remembered.
    """
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    return Counter(
        {
            f"{kind.__module__}.{kind.__qualname__}": count
            for kind, count in kinds.items()
            if str(kind.__module__).startswith(PACKAGE) and kind is not ObjectSchema
        }
    )


@asynccontextmanager
async def calling() -> AsyncIterator[Caller]:
    """Yield what makes the calls of the soak, here without any fault."""
    async with (
        LocalServer() as server,
        AsyncClient(server.url, "key") as client,
        anyio.create_task_group() as group,
    ):
        caller = Caller(client, group, seed=1)
        await caller.prepare()
        yield caller
        group.cancel_scope.cancel()


async def make(caller: Caller, kind: str, times: int, within: float) -> None:
    """Make calls of a kind at the same time, each given up after some seconds; then clean up."""
    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(caller.call, kind, within)
    await caller.delete_old(0)
    caller.ends.clear()


@pytest.mark.parametrize("within", [30.0, 0.03], ids=["finished", "cancelled"])
@pytest.mark.parametrize("kind", KINDS)
async def test_calls_leave_no_object_of_ours(kind: str, within: float) -> None:
    """After some more calls of any kind there are as many objects of ours as before."""
    async with calling() as caller:
        await make(caller, kind, CALLS, 30.0)  # opens as many connections as are kept
        await make(caller, kind, CALLS, within)
        before = ours()

        await make(caller, kind, CALLS, within)

        await until(lambda: max((ours() - before).values(), default=0) < CALLS)
        assert caller.foreign == 0


async def until(holds: Callable[[], bool]) -> None:
    """Return once it holds: what was cancelled, and threads, end in the background."""
    while not holds():  # noqa: ASYNC110 - nobody announces the end of an object
        await anyio.sleep(0.05)


async def closed(make: Callable[[], AbstractAsyncContextManager[object]], times: int) -> None:
    """Open, use and close so many."""
    for _ in range(times):
        async with make():
            pass


@asynccontextmanager
async def server_in_use() -> AsyncIterator[None]:
    """Open a server that answers a run."""
    async with LocalServer() as server, AsyncClient(server.url, "key") as client:
        await use(client)
        yield


@asynccontextmanager
async def embedded_in_use() -> AsyncIterator[None]:
    """Open a client with a server of its own."""
    async with AsyncClient.local() as client:
        await use(client)
        yield


@asynccontextmanager
async def runs_server_in_use() -> AsyncIterator[None]:
    """Open the server for tests of users."""
    async with RunsServer() as server, AsyncClient(server.url, "key") as client:
        await use(client)
        yield


@asynccontextmanager
async def application_in_use() -> AsyncIterator[None]:
    """Serve the application by a runner of the program's own."""
    runner = ApiRunner(create_app(backend=EchoBackend()))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with AsyncClient(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "key") as client:
        await use(client)
        yield
    await runner.cleanup()


async def use(client: AsyncClient) -> None:
    """Have a run answered."""
    assistant = await client.assistants.create(model="echo")
    await client.threads.create_and_run_poll(assistant_id=assistant.id, thread={"messages": []})


@pytest.mark.parametrize(
    "make", [server_in_use, embedded_in_use, runs_server_in_use, application_in_use]
)
async def test_closed_servers_and_clients_leave_no_object_of_ours(
    make: Callable[[], AbstractAsyncContextManager[object]],
) -> None:
    """A program may open a server or a client for each of its users, and close it again."""
    await closed(make, 2)
    before = ours()

    await closed(make, 3)

    await until(lambda: not ours() - before)
