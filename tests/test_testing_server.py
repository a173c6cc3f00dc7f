"""`RunsServer` opens and closes in every way a test may want, in mid-test as well."""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from openai_runs import APIConnectionError, APITimeoutError, AsyncClient, PollPolicy, await_run
from openai_runs.testing import RunsServer
from openai_runs.testing.hosting import HostedServer

PATIENT = PollPolicy(initial=0.01, maximum=0.05)


def serving() -> set[str]:
    """Return the names of the threads in which servers run now."""
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if name.startswith(("asyncio-portal", "openai_runs."))}


# --- opening and closing


async def test_server_is_opened_with_async_with() -> None:
    """The loop of the test is not blocked meanwhile, and the server's thread ends."""
    async with RunsServer() as server, AsyncClient(server.url) as client:
        assert (await client.threads.create()).object == "thread"
        assert serving() != set()

    with pytest.raises(RuntimeError, match="not open"):
        _ = server.url
    assert serving() == set()


async def test_server_that_nobody_wants_any_more_is_not_started() -> None:
    """Its worker thread may begin only after its caller was cancelled."""
    unwanted = threading.Event()
    unwanted.set()
    hosted = HostedServer(None, 0, dict)

    await anyio.to_thread.run_sync(hosted.open, unwanted)

    assert (hosted.url, serving()) == ("", set())


@pytest.mark.parametrize("turns", [0, 1, 3, 200])
async def test_server_whose_start_is_cancelled_is_closed(turns: int) -> None:
    """However far it had come."""
    opening = asyncio.create_task(RunsServer().__aenter__())
    for _ in range(turns):
        await asyncio.sleep(0)

    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert serving() == set()


async def test_closed_server_can_be_opened_again() -> None:
    """With a new database; what was received stays to be looked at."""
    server = RunsServer()
    for _ in range(2):
        async with server, AsyncClient(server.url) as client:
            assert (await client.assistants.list()).data == []
            await client.assistants.create(model="m")

    assert len(server.seen("POST", "/assistants")) == 2


async def test_open_server_is_not_opened_twice() -> None:
    """The first one goes on."""
    async with RunsServer() as server, AsyncClient(server.url) as client:
        with pytest.raises(RuntimeError, match="open already"):
            await server.__aenter__()
        with pytest.raises(RuntimeError, match="stopped"):
            await server.start()
        assert (await client.threads.create()).object == "thread"


async def test_file_and_port_can_be_chosen(tmp_path: Path) -> None:
    """What is in the file outlives the server."""
    path, port = tmp_path / "runs.db", unused_port()
    async with RunsServer(path, port=port) as server, AsyncClient(server.url) as client:
        thread = await client.threads.create()
        url = server.url

    async with RunsServer(path, port=port) as server:
        assert server.url == url
        async with AsyncClient(url) as client:
            assert await client.threads.retrieve(thread.id) == thread


def unused_port() -> int:
    """Return a port that nobody listens on, and that the system gives to nobody by itself."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port


async def test_fault_after_a_stream_leaves_what_was_sent(runs_server: RunsServer) -> None:
    """With `after` a stream has passed already; no second answer is written behind it."""
    runs_server.reply("Sunny.")
    runs_server.fault(503, after=True, path="runs")
    async with AsyncClient(runs_server.url) as client:
        assistant = await client.assistants.create(model="m")
        thread = await client.threads.create()

        async with client.runs.stream(thread.id, assistant_id=assistant.id) as stream:
            result = await stream.result()

    assert (result.text, result.recovered) == ("Sunny.", False)


# --- stopping and starting in mid-test


async def test_restarted_server_goes_on_where_it_was(runs_server: RunsServer) -> None:
    """Same URL, same objects; turns, faults and received requests stay as well."""
    url = runs_server.url
    async with AsyncClient(url, max_retries=0) as client:
        thread = await client.threads.create()
        runs_server.reply("After the restart.")
        runs_server.drop(method="DELETE")

        await runs_server.restart()

        assert runs_server.url == url
        assert await client.threads.retrieve(thread.id) == thread
        with pytest.raises(APIConnectionError):
            await client.threads.delete(thread.id)
        assistant = await client.assistants.create(model="m")
        run = await client.runs.create_and_poll(thread.id, assistant_id=assistant.id)
        assert (await client.runs.result(run)).text == "After the restart."

    assert runs_server.requests[0].method == "POST"


@pytest.mark.parametrize("drop", [True, False])
async def test_wait_outlives_a_restart(runs_server: RunsServer, drop: bool) -> None:
    """The run that was at work is carried out anew; the client waits on, held polls included."""
    runs_server.hang()
    runs_server.reply("Done.")
    async with AsyncClient(runs_server.url, poll=PATIENT) as client:
        assistant = await client.assistants.create(model="m")
        thread = await client.threads.create()
        run = await client.runs.create(thread.id, assistant_id=assistant.id)
        async with asyncio.TaskGroup() as group:
            wait = group.create_task(await_run(client, run, timeout=30))
            await anyio.to_thread.run_sync(until, lambda: runs_server.model_requests)
            await runs_server.restart(drop=drop)

        assert (await client.runs.result(wait.result())).text == "Done."


async def test_stopped_server_is_not_there_until_it_starts(runs_server: RunsServer) -> None:
    """Stopping twice is fine; the URL is known meanwhile."""
    async with AsyncClient(runs_server.url, max_retries=0) as client:
        await client.threads.create()
        await runs_server.stop()
        await runs_server.stop()

        with pytest.raises(APIConnectionError):
            await client.threads.create()

        await runs_server.start()
        await client.threads.create()


async def test_stopping_cuts_answers_that_are_under_way(runs_server: RunsServer) -> None:
    """A client in mid-request meets a lost connection, and not a time-out."""
    runs_server.hang_connection()
    async with (
        AsyncClient(runs_server.url, max_retries=0) as client,
        asyncio.TaskGroup() as group,
    ):
        asking = group.create_task(lost(client))
        await anyio.to_thread.run_sync(until, lambda: runs_server.requests)
        await runs_server.stop()

    assert not isinstance(asking.result(), APITimeoutError)


async def lost(client: AsyncClient) -> APIConnectionError:
    """Return the error of a request."""
    with pytest.raises(APIConnectionError) as caught:
        await client.assistants.list()
    return caught.value


def until(there: Callable[[], object]) -> None:
    """Return once something is there; blocks."""
    while not there():
        time.sleep(0.001)


async def test_closed_server_cannot_be_started() -> None:
    """`start` is for a server that was stopped."""
    server = RunsServer()

    with pytest.raises(RuntimeError, match="opened and then stopped"):
        await server.start()
