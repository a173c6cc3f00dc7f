"""Batches that are left early: nothing goes on, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, ConfigError, PollPolicy, RunMap
from openai_runs.testing import RunsServer
from tests.client.batching import Desk, again, drain, items_of
from tests.client.cancelling import WAYS, Way, nothing_left
from tests.support import HostileServer

QUICK = PollPolicy(initial=0.05, maximum=0.05)
NAMES = ["fast", *(f"slow{number}" for number in range(9))]


@pytest.fixture
def desk() -> Desk:
    """A server on which all runs but the first take for ever."""
    one = Desk()
    one.statuses = dict.fromkeys(NAMES[1:], "in_progress")
    return one


@pytest.fixture
async def server(desk: Desk) -> AsyncIterator[HostileServer]:
    """Serve it."""
    async with HostileServer(desk) as one:
        yield one


def batch(client: AsyncClient, **options: Any) -> RunMap[str]:
    """Return a batch of which one item ends, and four go on for ever."""
    return client.runs.map(items_of(NAMES), concurrency=5, assistant_id="asst_1", **options)


async def nothing_more(desk: Desk, server: HostileServer) -> None:
    """See that nothing comes any more."""
    await anyio.wait_all_tasks_blocked()
    bodies, requests = len(desk.bodies), len(server.requests)
    await anyio.sleep(0.2)
    assert len(desk.bodies) == bodies <= 6
    assert len(server.requests) == requests


@pytest.mark.parametrize("reaction", ["leave", "cancel"])
async def test_block_that_is_left_ends_the_batch(
    desk: Desk, server: HostileServer, reaction: Any
) -> None:
    """When the next line runs, all has ended; runs are cancelled if that was asked."""
    async with nothing_left(), AsyncClient(server.url, poll=QUICK) as client:
        async with batch(client, on_cancel=reaction) as results:
            await anext(results)
            await anyio.sleep(0.1)
        assert results.running == 0
        assert await anext(results, None) is None
        await nothing_more(desk, server)

    started = {request.path.split("/")[3] for request in server.seen("POST", "/runs")}
    assert set(desk.cancelled) == (started - {"fast"} if reaction == "cancel" else set())


async def test_error_in_the_body_ends_the_batch(desk: Desk, server: HostileServer) -> None:
    """It passes through as it is."""

    async def fail(client: AsyncClient) -> None:
        async with batch(client) as results:
            await anext(results)
            raise LookupError

    async with nothing_left(), AsyncClient(server.url, poll=QUICK) as client:
        with pytest.raises(LookupError):
            await fail(client)
        await nothing_more(desk, server)


async def test_break_ends_the_batch(desk: Desk, server: HostileServer) -> None:
    """The reader is dropped with the loop, and takes the work along."""
    async with nothing_left(), AsyncClient(server.url, poll=QUICK) as client:
        before = asyncio.all_tasks()
        async for key, _ in batch(client):
            assert key == "fast"
            break
        gc.collect()
        await nothing_more(desk, server)
        assert {
            task for task in asyncio.all_tasks() - before if "client" in task.get_name()
        } == set()


async def test_closing_the_client_lets_a_batch_cancel_its_runs(
    desk: Desk, server: HostileServer
) -> None:
    """As asked, although nobody waits for the batch any more."""
    async with nothing_left(), AsyncClient(server.url, poll=QUICK) as client:
        async for _ in batch(client, on_cancel="cancel"):
            await desk.polled_ten_times.wait()
            break

    assert sorted(desk.cancelled) == NAMES[1:6]


async def test_reader_may_be_dropped_in_another_thread(desk: Desk, server: HostileServer) -> None:
    """As the garbage collector does."""
    async with nothing_left(), AsyncClient(server.url, poll=QUICK) as client:
        held = [batch(client)]
        await anext(held[0])
        thread = threading.Thread(target=held.clear)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        await nothing_more(desk, server)


def test_reader_may_outlive_its_event_loop() -> None:
    """Dropped after the loop was closed, it has nothing to end and says nothing."""
    held: list[RunMap[str]] = []

    async def begin() -> None:
        async with HostileServer(Desk()) as server:
            client = AsyncClient(server.url)
            held.append(client.runs.map(items_of(NAMES), concurrency=5, assistant_id="a"))
            await anext(held[0])
            await client.aclose()

    asyncio.run(begin())
    held.clear()
    gc.collect()


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_reader_ends_the_batch(desk: Desk, server: HostileServer, way: Way) -> None:
    """Runs are cancelled, as asked, before the reader's task ends; the input is closed."""
    closed: list[bool] = []

    async def input_() -> AsyncIterator[tuple[str, dict[str, str]]]:
        try:
            async for item in again(NAMES):
                yield item
        finally:
            closed.append(True)

    async def read(client: AsyncClient) -> None:
        options: Any = {"concurrency": 5, "assistant_id": "asst_1", "on_cancel": "cancel"}
        async for key, _ in client.runs.map(input_(), **options):
            assert key == "fast"

    async with nothing_left(), AsyncClient(server.url, poll=QUICK) as client:
        await way(read(client), desk.polled_ten_times.wait())
        assert closed == [True]
        assert sorted(desk.cancelled) == NAMES[1:6]
        await nothing_more(desk, server)


async def test_closing_the_client_ends_the_batch(server: HostileServer) -> None:
    """The reader is told, so that a part is not taken for the whole."""
    async with nothing_left():
        client = AsyncClient(server.url, poll=QUICK)
        results = batch(client)
        await anext(results)
        await client.aclose()
        with pytest.raises(ConfigError, match="the client was closed before"):
            await drain(results, [])


@pytest.mark.parametrize("end", ["batch", "client"])
async def test_end_before_the_beginning_reaches_the_reader(server: HostileServer, end: str) -> None:
    """A batch that is closed, by itself or with its client, before its first step was made."""
    client = AsyncClient(server.url)
    results, found = batch(client), list[str]()
    closing = results.aclose if end == "batch" else client.aclose

    async def read() -> None:
        try:
            await drain(results, found)
        except ConfigError:
            found.append("closed")

    async with nothing_left(), anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(closing)
    await client.aclose()

    assert found == ([] if end == "batch" else ["closed"])
    assert server.requests == []


async def test_reader_of_a_closed_client_is_refused(server: HostileServer) -> None:
    """As any other call."""
    client = AsyncClient(server.url)
    await client.aclose()

    with pytest.raises(ConfigError, match="closed"):
        await anext(batch(client))


async def test_error_that_nobody_reads_is_logged(
    desk: Desk, server: HostileServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An input that cannot be closed is found out when the reader has gone."""
    released = anyio.Event()

    class Input:
        def __aiter__(self) -> Input:
            return self

        async def __anext__(self) -> tuple[str, dict[str, str]]:
            await released.wait()
            return "fast", {"thread_id": "fast"}

        async def aclose(self) -> None:
            raise LookupError

    async with (
        nothing_left(),
        AsyncClient(server.url) as client,
        client.runs.map(Input(), concurrency=2, assistant_id="a"),
    ):
        await anyio.wait_all_tasks_blocked()

    (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


async def test_tool_may_end_its_own_batch(
    runs_server: RunsServer, runs_client: AsyncClient
) -> None:
    """It does not wait for itself; whoever reads sees the end."""
    runs_server.call_tool("enough")
    assistant = await runs_client.assistants.create(model="scripted")
    items: Any = ((number, {"thread": {}}) for number in range(1000))

    async def enough() -> None:
        await results.aclose()

    results = runs_client.runs.map(
        items, concurrency=1, assistant_id=assistant.id, tools=[enough], timeout=30
    )
    found: list[int] = []
    with anyio.fail_after(8):
        await drain(results, found)

    assert found == []
    assert results.pulled == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
async def test_end_of_the_program_reaches_the_reader(
    runs_server: RunsServer, runs_client: AsyncClient, stop: type[BaseException]
) -> None:
    """What a tool raises to end the program is raised where the batch is read, at once."""
    runs_server.call_tool("end")
    assistant = await runs_client.assistants.create(model="scripted")

    async def end() -> None:
        raise stop

    with pytest.raises(stop):
        await anext(
            runs_client.runs.map(
                [(1, {"thread": {}})], concurrency=1, assistant_id=assistant.id, tools=[end]
            )
        )
