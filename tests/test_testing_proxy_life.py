"""The fault proxy counts what it sees, lives as told, and leaves nothing behind."""

import asyncio
import socket
from urllib.parse import urlsplit

import anyio
import pytest

from openai_runs import AsyncClient
from openai_runs.testing import Cut, Delay, FaultProxy, Refuse, Reset, RunsServer, Stall
from tests.proxying import TAPES, calling, upstream
from tests.support import HostileServer
from tests.support import Reset as ResetByServer

STREAM = TAPES["chunked"]


# --- with a real client and the real server


async def test_client_works_through_the_proxy(
    runs_server: RunsServer,
) -> None:
    """A run is made and waited for; the proxy saw every request, without credentials."""
    async with (
        FaultProxy(runs_server.url) as proxy,
        AsyncClient(proxy.url, api_key="sk-secret") as client,
    ):
        assistant = await client.assistants.create(model="m")
        thread = await client.threads.create(metadata={"topic": "weather"})
        run = await client.runs.create_and_poll(thread.id, assistant_id=assistant.id)

    assert run.status == "completed"
    assert [one.path for one in proxy.requests] == [one.path for one in runs_server.requests]
    (create,) = proxy.seen("POST", "/threads")
    assert create.json == {"metadata": {"topic": "weather"}}
    assert create.headers["content-type"] == "application/json"
    assert "sk-secret" not in repr(proxy.requests)
    assert [answer.status for answer in proxy.answers] == [200] * len(proxy.requests)


async def test_client_survives_what_is_planned(runs_server: RunsServer) -> None:
    """A refused create is sent again, a cut one is not made twice, a lost GET is repeated."""
    async with FaultProxy(runs_server.url) as proxy, AsyncClient(proxy.url) as client:
        assistant = await client.assistants.create(model="m")
        thread = await client.threads.create()
        proxy.plan(Refuse(), Cut(after=10), on=f"POST /v1/threads/{thread.id}/runs")
        proxy.plan(Reset(after=1), on=f"GET /v1/threads/{thread.id}/runs")
        run = await client.runs.create(thread.id, assistant_id=assistant.id)

        assert [one.id async for one in client.runs.list(thread.id)] == [run.id]

    assert proxy.faults_left == 0
    assert len(proxy.seen("POST", "runs")) == 3


# --- what it counts


async def test_requests_are_noted_as_they_were_sent() -> None:
    """Method, path below the base URL, query, headers, and a body in either framing."""
    async with (
        upstream(TAPES["length"]) as server,
        FaultProxy(server.url) as proxy,
        calling(proxy.url) as caller,
    ):
        await caller.ask("POST /v1/a?limit=2&empty=", "Last-Event-ID: 1-7\r\n", b'{"a":1}')
        await caller.read(len(TAPES["length"]))
        await caller.send(
            b"POST /v1/b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
        )
        await caller.read(len(TAPES["length"]))

    first, second = proxy.requests
    assert (first.method, first.path, first.json) == ("POST", "/a", {"a": 1})
    assert first.query == {"limit": "2", "empty": ""}
    assert first.headers["last-event-id"] == "1-7"
    assert (second.path, second.json) == ("/b", [1, 2])
    assert proxy.answers[0].request == first
    assert proxy.answers[0].headers["content-type"].startswith("text/event-stream")


async def test_connections_are_counted() -> None:
    """Also those on which nothing was asked."""
    async with upstream(STREAM) as server, FaultProxy(server.url) as proxy:
        for _ in range(3):
            async with calling(proxy.url) as caller:
                await caller.ask()
                await caller.read(1)

    assert proxy.connections == 3


# --- when one side goes


async def test_client_that_goes_takes_the_connection_to_the_server_along() -> None:
    """A server behind the proxy learns that nobody reads its stream any more."""
    async with upstream(STREAM) as server, FaultProxy(server.url) as proxy:
        proxy.plan(Stall(after=5))
        async with calling(proxy.url) as caller:
            await caller.ask()
            await caller.read(1)
            assert not server.deserted.is_set()
        await server.deserted.wait()


async def test_server_that_closes_an_idle_connection_closes_the_clients() -> None:
    """A client does not send its next request into a connection that is gone."""
    late = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(late)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with FaultProxy(f"http://127.0.0.1:{port}") as proxy, calling(proxy.url) as caller:
            ended = await caller.read_all()

    assert (ended.raw, ended.how) == (b"", "FIN")


async def test_reset_of_the_server_is_a_reset_for_the_client() -> None:
    """The proxy does not soften what the server does."""
    async with (
        HostileServer(lambda request: ResetByServer()) as server,
        FaultProxy(server.url) as proxy,
        calling(proxy.url) as caller,
    ):
        await caller.ask()
        ended = await caller.read_all()

    assert (ended.raw, ended.how) == (b"", "RST")


async def test_answer_that_the_server_leaves_unfinished_is_closed() -> None:
    """The client has what there was, and FIN."""
    tape = TAPES["length"].replace(b"text/event-stream", b"text/plain\r\nConnection: close")[:-5]
    async with (
        upstream(tape) as server,
        FaultProxy(server.url) as proxy,
        calling(proxy.url) as caller,
    ):
        await caller.ask()
        ended = await caller.read_all()

    assert (ended.raw, ended.how) == (tape, "FIN")
    assert not proxy.answers[0].complete


async def test_server_that_is_not_there_is_a_reset() -> None:
    """While the server is down, so is the way to it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connecting is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with FaultProxy(url) as proxy, calling(proxy.url) as caller:
            ended = await caller.read_all()

    assert (ended.raw, ended.how) == (b"", "RST")


# --- opening and closing


async def test_url_has_the_path_of_the_server_and_a_port_of_its_own() -> None:
    """It takes the place of the server's URL."""
    proxy = FaultProxy("http://127.0.0.1:5555/api/v1/")
    with pytest.raises(RuntimeError, match="not open"):
        _ = proxy.url
    async with proxy:
        parts = urlsplit(proxy.url)

    assert (parts.scheme, parts.hostname, parts.path) == ("http", "127.0.0.1", "/api/v1")
    assert parts.port not in (None, 5555)


@pytest.mark.parametrize("url", ["https://example.test/v1", "127.0.0.1:80", "http:///v1"])
def test_url_that_cannot_be_proxied_is_refused(url: str) -> None:
    """The proxy speaks no TLS."""
    with pytest.raises(ValueError, match="http://"):
        FaultProxy(url)


@pytest.mark.parametrize("fault", [Stall(after=5), Delay(60), None], ids=str)
async def test_closing_ends_every_connection_and_leaves_no_task(
    fault: Stall | Delay | None,
) -> None:
    """Stalled, delayed or idle: the client's end closes, and the loop is as it was."""
    async with upstream(STREAM) as server:
        before = asyncio.all_tasks()
        proxy = FaultProxy(server.url)
        await proxy.start()
        if fault is not None:
            proxy.plan(fault)
        url = proxy.url
        async with calling(url) as caller:
            await caller.ask()
            await server.asked.wait()
            await proxy.aclose()
            await proxy.aclose()
            ended = await caller.read_all()
            await server.deserted.wait()
        with pytest.raises(ConnectionRefusedError):
            async with calling(url):
                pass

    assert ended.how == "FIN"
    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()


async def test_proxy_closed_at_once_leaves_nothing() -> None:
    """Its root task had no time to begin."""
    before = asyncio.all_tasks()
    proxy = FaultProxy("http://127.0.0.1:1/v1")
    await proxy.start()
    url = proxy.url

    await proxy.aclose()

    with pytest.raises(ConnectionRefusedError):
        async with calling(url):
            pass
    assert asyncio.all_tasks() == before


async def test_proxy_is_opened_in_one_task_and_closed_in_another() -> None:
    """As fixtures do; afterwards it can be opened again."""
    async with upstream(STREAM) as server:
        proxy = FaultProxy(server.url)
        for _ in range(2):
            await asyncio.create_task(proxy.start())
            async with calling(proxy.url) as caller:
                await caller.ask()
                assert await caller.read(len(STREAM)) == STREAM
            await asyncio.create_task(proxy.aclose())


async def test_open_proxy_is_not_opened_twice() -> None:
    """The first one would never be closed."""
    async with FaultProxy("http://127.0.0.1:1/v1") as proxy:
        with pytest.raises(RuntimeError, match="open already"):
            await proxy.start()


async def test_closing_is_finished_although_its_scope_is_cancelled() -> None:
    """A test whose time is up leaves no socket behind."""
    async with upstream(STREAM) as server:
        before = asyncio.all_tasks()
        with anyio.CancelScope() as scope:
            async with FaultProxy(server.url) as proxy, calling(proxy.url) as caller:
                await caller.ask()
                await caller.read(1)
                scope.cancel()
                await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()


async def test_what_is_not_http_fails_the_test_on_closing() -> None:
    """Nothing is swallowed: closing raises what the proxy could not understand."""
    async with upstream(STREAM) as server:
        proxy = FaultProxy(server.url)
        await proxy.start()
        async with calling(proxy.url) as caller:
            await caller.send(b"garbage\r\n\r\n")
            await caller.read_all()

            with pytest.raises(ExceptionGroup) as caught:
                await proxy.aclose()

    assert "'garbage' begins no message of HTTP/1.1" in repr(caught.value)
