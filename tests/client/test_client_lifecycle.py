"""A client's life: opened here, closed there, twice, never, in another loop, after a fork."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
from typing import Any

import aiohttp
import anyio
import pytest

from openai_runs import AsyncClient, ConfigError, PollPolicy, await_run
from tests.client.acting import IDS, client_of, of_run, script
from tests.client.cancelling import nothing_left
from tests.support import Hang, HostileServer

DONE = of_run("completed")
NOWHERE = "http://127.0.0.1:9/v1"


async def test_client_opened_in_one_task_is_closed_in_another() -> None:
    """No task owns the client: fixtures and frameworks may open and close it where they like."""
    async with nothing_left(), HostileServer(script(DONE)) as server:

        async def opened() -> AsyncClient:
            client = await client_of(server).__aenter__()
            await await_run(client, **IDS)
            return client

        client = await asyncio.create_task(opened())
        run = await asyncio.create_task(await_run(client, **IDS))
        await asyncio.create_task(client.__aexit__(None, None, None))

    assert run.status == "completed"


async def test_server_and_client_open_and_close_in_any_order_of_tasks() -> None:
    """A server of another task that ends first is no trouble for closing the client."""
    async with nothing_left():
        server = HostileServer(script(DONE))
        await asyncio.create_task(server.__aenter__())
        client = client_of(server)
        await asyncio.create_task(await_run(client, **IDS))
        await asyncio.create_task(server.stop())
        await asyncio.create_task(client.aclose())


async def test_client_needs_no_async_with() -> None:
    """Made, used, closed."""
    async with nothing_left(), HostileServer(script(DONE)) as server:
        client = client_of(server)
        try:
            run = await await_run(client, **IDS)
        finally:
            await client.close()

    assert run.status == "completed"


async def test_second_aclose_does_nothing() -> None:
    """Closing is safe to repeat, at once and in parallel, used or not."""
    async with HostileServer(script(DONE)) as server:
        unused, used = client_of(server), client_of(server)
        await await_run(used, **IDS)
        for client in (unused, used):
            await asyncio.gather(client.aclose(), client.aclose())
            await client.aclose()


@pytest.mark.parametrize("used", [True, False])
async def test_use_after_close_is_told(used: bool) -> None:
    """A closed client says so, at the call; nothing is opened again behind the scenes."""
    async with nothing_left(), HostileServer(script(DONE)) as server:
        client = client_of(server)
        if used:
            await await_run(client, **IDS)
        await client.aclose()
        before = len(server.requests)
        with pytest.raises(ConfigError, match="closed"):
            await await_run(client, **IDS)
        with pytest.raises(ConfigError, match="closed"):
            await client.runs.create("thread_1", assistant_id="asst_1")

    assert len(server.requests) == before


async def test_closing_ends_a_call_under_way() -> None:
    """A call that hangs while the client is closed fails; it does not hang on."""
    arrived = anyio.Event()

    async def handler(request: Any) -> Hang:
        arrived.set()
        return Hang()

    async with nothing_left(), HostileServer(handler) as server:
        client = client_of(server, poll=PollPolicy(initial=0, maximum=0))
        call = asyncio.create_task(await_run(client, **IDS))
        await arrived.wait()
        await client.aclose()
        with pytest.raises(ConfigError, match="closed"):
            await call


async def test_copy_does_not_close_its_original() -> None:
    """with_options() shares the connections: the original closes them, for both."""
    async with nothing_left(), HostileServer(script(DONE)) as server, client_of(server) as client:
        async with client.with_options(max_retries=0) as copy:
            await await_run(copy, **IDS)
        await await_run(client, **IDS)
        await client.aclose()
        with pytest.raises(ConfigError, match="closed"):
            await await_run(copy, **IDS)


async def test_session_of_the_callers_stays_open() -> None:
    """What the caller opened, the caller closes."""
    async with HostileServer(script(DONE)) as server, aiohttp.ClientSession() as session:
        async with client_of(server, session=session) as client:
            await await_run(client, **IDS)
        assert not session.closed
        async with session.get(f"{server.url}/threads/thread_1/runs/run_1") as response:
            assert response.status == 200


async def test_closed_session_of_the_callers_is_told() -> None:
    """A session that its owner has closed is an error of its own."""
    async with HostileServer(script(DONE)) as server:
        async with aiohttp.ClientSession() as session:
            client = client_of(server, session=session)
        with pytest.raises(ConfigError, match="ClientSession"):
            await await_run(client, **IDS)
        await client.aclose()


def test_second_loop_is_told() -> None:
    """A client of one event loop says so in another, before it breaks in strange ways."""

    async def use() -> None:
        async with HostileServer(script(DONE)) as server:
            spare = client_of(server)
            if not made:
                made.append(spare)
            try:
                await await_run(made[0], **IDS)
            finally:
                if made[0] is not spare or len(made) > 1:
                    await made[0].aclose()

    made: list[AsyncClient] = []
    asyncio.run(use())
    with pytest.raises(ConfigError, match="event loop"):
        asyncio.run(use())
    asyncio.run(made[0].aclose())
    gc.collect()


def test_client_may_be_made_outside_of_a_loop() -> None:
    """A module-level client is fine: nothing is opened before its first use."""
    client = AsyncClient(NOWHERE)

    asyncio.run(client.aclose())


def test_unused_client_needs_no_closing() -> None:
    """Nothing was opened, so there is nothing to complain of."""
    AsyncClient(NOWHERE)
    gc.collect()


SCRIPT = """
    import asyncio, gc, os, sys, warnings
    from openai_runs import AsyncClient, ConfigError, await_run
    from tests.client.acting import IDS, client_of, of_run, script
    from tests.support import HostileServer
"""


def outcome(body: str) -> subprocess.CompletedProcess[str]:
    """Return what a fresh interpreter says of this program."""
    program = textwrap.dedent(SCRIPT) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, check=False
    )


def test_client_forgotten_open_is_told() -> None:
    """Garbage-collected without a close: a ResourceWarning, as for a file or a socket."""
    done = outcome("""
        async def main():
            async with HostileServer(script(of_run("completed"))) as server:
                client = client_of(server)
                await await_run(client, **IDS)
                del client
                gc.collect()
        asyncio.run(main())
    """)

    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" in done.stderr


def test_client_closed_properly_is_quiet() -> None:
    """The same, closed: not a word."""
    done = outcome("""
        async def main():
            async with HostileServer(script(of_run("completed"))) as server:
                async with client_of(server) as client:
                    await await_run(client, **IDS)
                del client
                gc.collect()
        asyncio.run(main())
    """)

    assert (done.returncode, done.stderr) == (0, "")


def test_use_after_a_fork_is_told() -> None:
    """A child must not talk over its parent's connections: it is told, and the parent goes on."""
    done = outcome("""
        warnings.simplefilter("ignore", DeprecationWarning)
        async def child(client):
            try:
                await await_run(client, **IDS)
            except ConfigError as error:
                return "fork" in str(error)
        async def main():
            async with HostileServer(script(of_run("completed"))) as server:
                async with client_of(server) as client:
                    await await_run(client, **IDS)
                    pid = os.fork()
                    if pid == 0:
                        asyncio.events._set_running_loop(None)
                        loop = asyncio.new_event_loop()
                        os._exit(0 if loop.run_until_complete(child(client)) else 1)
                    _, status = os.waitpid(pid, 0)
                    print(os.waitstatus_to_exitcode(status))
                    print((await await_run(client, **IDS)).status)
        asyncio.run(main())
    """)

    assert done.stdout.split() == ["0", "completed"], done.stderr


def test_client_made_before_a_fork_works_in_the_child() -> None:
    """A module-level client that was never used belongs to nobody yet (gunicorn's preload)."""
    done = outcome("""
        client = AsyncClient("http://127.0.0.1:9/v1", max_retries=0)
        pid = os.fork()
        if pid == 0:
            async def child():
                try:
                    await client.runs.retrieve("run_1", thread_id="thread_1")
                except Exception as error:
                    return type(error).__name__
                finally:
                    await client.aclose()
            os._exit(0 if asyncio.run(child()) == "APIConnectionError" else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """)

    assert done.stdout.split() == ["0"], done.stderr
