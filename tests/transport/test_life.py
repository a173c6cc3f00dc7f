"""The life of a transport: opened late, closed once, used in one loop of one process."""

import asyncio
import gc
import subprocess
import sys
import textwrap
import warnings

import aiohttp
import pytest

from openai_runs._transport import Transport
from openai_runs.config import MAX_CONNECTIONS
from openai_runs.errors import APIConnectionError, ConfigError
from tests.support import Answer, Hang, HostileServer
from tests.transport.wire import listening


async def call(transport: Transport, url: str) -> int:
    """Return the status of one GET."""
    return (await transport.exchange("GET", url, headers={}, timeout=30)).status


def good(_: object) -> Answer:
    """Answer with an empty object."""
    return Answer(json={})


def test_transport_is_made_without_a_loop() -> None:
    """Making one opens nothing; a client can be a module's global."""
    assert Transport().max_connections == MAX_CONNECTIONS
    assert Transport(max_connections=7).max_connections == 7


async def test_closed_twice_and_never_again() -> None:
    """A second close does nothing; a call after it says what to do."""
    transport = Transport()
    async with HostileServer(good) as server:
        assert await call(transport, server.url) == 200

        await transport.aclose()
        await transport.aclose()

        with pytest.raises(ConfigError, match="closed; make a new one"):
            await call(transport, server.url)


async def test_closed_before_the_first_use() -> None:
    """A transport that was never opened can be closed."""
    transport = Transport()

    await transport.aclose()

    with pytest.raises(ConfigError, match="closed"):
        await call(transport, "http://127.0.0.1/")


async def test_close_ends_calls_under_way() -> None:
    """A call that is waiting when the transport is closed fails as a lost connection."""
    transport, arrived = Transport(), asyncio.Event()

    def hang(_: object) -> Hang:
        arrived.set()
        return Hang()

    async with HostileServer(hang) as server:
        under_way = asyncio.create_task(call(transport, server.url))
        await arrived.wait()

        await transport.aclose()

        with pytest.raises(APIConnectionError):
            await under_way


async def test_session_of_the_caller_stays_open() -> None:
    """What the caller gave is the caller's to close; its headers and settings are used."""
    async with (
        HostileServer(good) as server,
        aiohttp.ClientSession(headers={"X-Mine": "1"}) as session,
    ):
        transport = Transport(session=session)
        await call(transport, server.url)
        await transport.aclose()

        assert not session.closed
        assert server.requests[0].headers["x-mine"] == "1"


async def test_closed_session_of_the_caller_is_named() -> None:
    """The error tells it from a closed client."""
    session = aiohttp.ClientSession()
    await session.close()

    with pytest.raises(ConfigError, match=r"ClientSession this client was given is closed"):
        await call(Transport(session=session), "http://127.0.0.1/")


async def test_second_loop_is_refused() -> None:
    """Connections belong to a loop; the error says so instead of hanging."""
    transport = Transport()
    async with HostileServer(good) as server:
        url = server.url
        await call(transport, url)

        def elsewhere() -> None:
            asyncio.run(call(transport, url))

        with pytest.raises(ConfigError, match="another event loop"):
            await asyncio.to_thread(elsewhere)

        assert await call(transport, url) == 200
    await transport.aclose()


def test_transport_left_open_is_warned_of() -> None:
    """Forgetting `aclose` is seen as a ResourceWarning, as with a file."""

    async def forget() -> None:
        transport = Transport()
        async with HostileServer(good) as server:
            await call(transport, server.url)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
        gc.collect()
        found = {(one.category, str(one.message).partition(" <")[0]) for one in caught}
        caught.clear()  # they keep what was left open alive
        gc.collect()

    assert (ResourceWarning, "Unclosed client session") in found


FORK = """
    import asyncio, os, sys
    from openai_runs._transport import Transport
    from openai_runs.errors import ConfigError

    transport, fresh = Transport(), Transport()

    async def call(one):
        try:
            await one.exchange("GET", "http://127.0.0.1:1/", headers={}, timeout=30)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    print("parent", asyncio.run(call(transport)), flush=True)
    child = os.fork()
    if child == 0:
        print("used", asyncio.run(call(transport)), flush=True)
        print("fresh", asyncio.run(call(fresh)), flush=True)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_fork_is_noticed() -> None:
    """A transport used before a fork is refused in the child; one that was not is usable."""
    script = textwrap.dedent(FORK)

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert lines["parent"].startswith("APIConnectionError: no connection")
    assert lines["used"].startswith("ConfigError: this client was used before a fork")
    assert lines["fresh"].startswith("APIConnectionError: no connection")


class Doors:
    """Counts the connections that requests come over."""

    def __init__(self) -> None:
        """Begin with none."""
        self.seen: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request of one connection."""
        name = f"connection {len(set(self.seen)) + 1}"
        while head := await reader.readuntil(b"\r\n\r\n"):
            if b"Content-Length: 2" in head:
                await reader.readexactly(2)
            self.seen.append(name)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def post(transport: Transport, url: str) -> int:
    """Return the status of one POST."""
    reply = await transport.exchange("POST", url, headers={}, body=b"{}", timeout=30)
    return reply.status


async def test_post_uses_no_connection_that_was_idle_for_long() -> None:
    """The server may be closing it; nobody would know whether the request was carried out."""
    doors, transport = Doors(), Transport(reuse_idle=-1.0)  # any time is too long
    async with listening(doors) as port:
        for _ in range(3):
            assert await post(transport, f"http://127.0.0.1:{port}/") == 200
        await transport.aclose()

    assert doors.seen == ["connection 1", "connection 2", "connection 3"]


async def test_post_uses_the_connection_of_what_came_just_before() -> None:
    """As in a row of calls, or after a poll."""
    doors, transport = Doors(), Transport(reuse_idle=60.0)
    async with listening(doors) as port:
        url = f"http://127.0.0.1:{port}/"
        await post(transport, url)
        await call(transport, url)
        await post(transport, url)
        await transport.aclose()

    assert set(doors.seen) == {"connection 1"}


async def test_what_may_be_repeated_uses_a_connection_however_long_it_was_idle() -> None:
    """A poll each few seconds opens no connection each time."""
    doors, transport = Doors(), Transport(reuse_idle=-1.0, max_connections=1)
    async with listening(doors) as port:
        url = f"http://127.0.0.1:{port}/"
        await post(transport, url)
        for _ in range(3):
            await call(transport, url)
        await transport.exchange("DELETE", url, headers={}, timeout=30)
        await transport.aclose()

    assert set(doors.seen) == {"connection 1"}


async def test_connection_that_is_not_used_is_closed_before_another_is_opened() -> None:
    """There are never more than `max_connections`."""
    doors, transport = Doors(), Transport(reuse_idle=-1.0, max_connections=1)
    async with listening(doors) as port:
        url = f"http://127.0.0.1:{port}/"
        await asyncio.gather(*(post(transport, url) for _ in range(4)))
        await transport.aclose()

    assert len(doors.seen) == 4
