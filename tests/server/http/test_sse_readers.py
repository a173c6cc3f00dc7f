"""Readers: any number, of any speed, and none of them holds a run up."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from aiohttp import web

from openai_runs.config import READER_BACKLOG
from openai_runs.server import Call, CallTools, Hang, LocalServer, Say, ScriptedBackend, create_app
from tests.databases import Database, Db, execute, texts_only
from tests.server.conftest import Serve
from tests.server.http.test_sse_response import read_until, rest_of, start_and_read
from tests.server.support import Caller, Streamed, run_path, told_text

SMALL = 4096
"""Bytes of a socket's buffer; the kernel doubles it."""


def resident_bytes() -> int:
    """Return the memory of this process that is in use (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@asynccontextmanager
async def narrow_server(
    script: list[Any],
    *,
    db: Db | None = None,
    cancels: bool = True,
    shutdown_timeout: float = 1,
    **options: Any,
) -> AsyncIterator[Caller]:
    """Serve over sockets with small buffers; yield who calls, over sockets as usual."""
    app = create_app(db, backend=ScriptedBackend(script), drain_grace=0, **options)
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=cancels,
        shutdown_timeout=shutdown_timeout,
    )
    await runner.setup()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    listener.bind(("127.0.0.1", 0))
    try:
        await web.SockSite(runner, listener, backlog=512).start()
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            yield Caller(session, url, runner.cleanup)
    finally:
        await runner.cleanup()


async def deaf_reader(caller: Caller, path: str) -> socket.socket:
    """Return a connection that has asked for this and reads nothing of the answer."""
    host = caller.url.removeprefix("http://").partition(":")[0]
    request = f"GET /v1{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    return await deaf_connection(caller, request.encode())


async def deaf_connection(caller: Caller, sent: bytes) -> socket.socket:
    """Return a connection that has sent this and reads nothing, with a small buffer for it."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    reader.setblocking(False)
    host, _, port = caller.url.removeprefix("http://").removesuffix("/v1").partition(":")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(reader, (host, int(port)))
    await loop.sock_sendall(reader, sent)
    return reader


def dropped(caplog: pytest.LogCaptureFixture, run: Any) -> int:
    """Return how many readers of the run were dropped so far."""
    of_run = [one for one in caplog.records if getattr(one, "run_id", None) == run["id"]]
    lines = [one.getMessage() for one in of_run]
    return sum(run["id"] in line and "a reader is dropped" in line for line in lines)


@pytest.mark.timeout(120)
async def test_readers_that_never_read_are_dropped_and_the_run_completes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """200 of them: the run is as fast as without, and memory stays bounded."""
    caplog.set_level(logging.WARNING, "openai_runs.server")
    text = [f"{number:4} " + "x" * 500 for number in range(400)]
    async with narrow_server([Say(text, delay=1, pause=0.002)], write_timeout=1.0) as caller:
        run = await caller.start()
        path = f"{run_path(run)}/stream"
        readers = [await deaf_reader(caller, path) for _ in range(200)]
        before = resident_bytes()
        ended = await caller.settled(run)
        peak = resident_bytes()
        with anyio.fail_after(40):
            while dropped(caplog, run) < len(readers):  # noqa: ASYNC110 - only the log tells
                await anyio.sleep(0.1)
        for reader in readers:
            reader.close()
        replay = await caller.replay(run)

    assert ended["status"] == "completed"
    assert told_text(replay.events) == "".join(text)
    assert len(replay.body) > 200 * 1024
    # Each may hold a backlog and what it was sent last, and they share the bytes.
    assert peak - before < 60 * 1024 * 1024


async def test_reader_that_is_slow_gets_everything_all_the_same() -> None:
    """It falls behind its backlog, reads the database, and catches up."""
    text = [f"{number:5} " + "y" * 2000 for number in range(600)]
    assert sum(map(len, text)) > 3 * READER_BACKLOG
    async with narrow_server([Say(text, pause=0.0005)], write_timeout=30) as caller:
        response, events = await start_and_read(caller, "message.created")
        run = events[0].data
        await caller.settled(run)
        body = b""
        with anyio.fail_after(40):
            while piece := await response.content.read(4096):
                body += piece
        rest = Streamed(200, {}, body)
        replay = await caller.replay(run)

    assert rest.done
    assert told_text([*events, *rest.events]) == "".join(text)
    assert [e.frame for e in [*events, *rest.events]] == [e.frame for e in replay.events]


async def test_many_readers_read_the_same(serve: Serve) -> None:
    """Each from the beginning, while the run goes on."""
    caller = await serve(Say([f"word {number} " for number in range(40)], pause=0.01))
    run = await caller.start()
    streams: list[Streamed] = []

    async def read() -> None:
        streams.append(await caller.replay(run))

    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(read)

    assert len({one.body for one in streams}) == 1
    assert streams[0].done


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "written to"])
async def test_reader_that_leaves_is_no_error(
    caplog: pytest.LogCaptureFixture, cancels: bool
) -> None:
    """The run goes on, the log is silent, and the seat is free again."""
    caplog.set_level(logging.INFO)
    turn = Say(["Half ", "a ", "word."], pause=0.2)
    async with narrow_server([turn], cancels=cancels, max_streams=1) as caller:
        response, events = await start_and_read(caller, "Half")
        response.close()

        ended = await caller.settled(events[0].data)
        again = await caller.replay(ended)

    assert ended["status"] == "completed"
    assert told_text(again.events) == "Half a word."
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


TROUBLE: dict[str, tuple[str, str]] = {
    "pruned": ("DELETE FROM events", ""),
    "unreadable": ("DROP TABLE events", "a stream "),
    "damaged": ("UPDATE events SET body = 'text'", "a stream failed"),
}


@pytest.mark.parametrize("how", ["pruned", "unreadable", texts_only("damaged", None)], ids=TROUBLE)
async def test_stream_ends_without_done_when_its_log_is_gone(
    tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Whatever happens to it meanwhile, a reader never waits for ever, nor is told an untruth."""
    statement, words = TROUBLE[how]
    db = database(tmp_path / "gone.db")
    text = [f"{number:5} " + "z" * 2000 for number in range(300)]
    async with narrow_server([Say(text, pause=0.001)], db=db) as caller:
        run = await caller.settled(await caller.start())
        reader = await deaf_reader(caller, f"{run_path(run)}/stream")
        received = b""
        with anyio.fail_after(20):
            while b"thread.message.delta" not in received:
                received += await asyncio.get_running_loop().sock_recv(reader, 64)
        await anyio.to_thread.run_sync(execute, db, statement)
        with anyio.fail_after(20):
            while piece := await receive(reader):
                received += piece
        reader.close()

    assert b"[DONE]" not in received
    assert words in caplog.text


async def receive(reader: socket.socket) -> bytes:
    """Return what has come; nothing at the end, however it came."""
    try:
        return await asyncio.get_running_loop().sock_recv(reader, 65536)
    except ConnectionResetError:
        return b""


async def test_silence_is_filled_with_comments(serve: Serve) -> None:
    """A proxy that closes silent connections leaves this one open."""
    caller = await serve(Hang("Half"), heartbeat_interval=0.02)
    response, events = await start_and_read(caller, "Half")

    text = b""
    with anyio.fail_after(20):
        while text.count(b": keep-alive\n\n") < 3:
            text += await response.content.readany()
    await caller.post(f"{run_path(events[0].data)}/cancel")
    rest = await rest_of(response)

    assert text.replace(b": keep-alive\n\n", b"") == b""
    assert rest.names[-1] == "run.cancelled"


async def test_comments_take_nothing_away(serve: Serve) -> None:
    """However short the silence that calls for one, all events come, once and in order."""
    caller = await serve(Say([f"word {n} " for n in range(50)], pause=0.01), heartbeat_interval=0)

    streamed = await caller.start_stream()

    assert streamed.body.count(b": keep-alive\n\n") > 1
    assert streamed.body.replace(b": keep-alive\n\n", b"") == (
        await caller.replay(streamed.events[-1].data)
    ).body.replace(b": keep-alive\n\n", b"")


async def test_streams_beyond_the_limit_are_refused_before_anything_is_made(serve: Serve) -> None:
    """503 with a pause, for creates and for readers; JSON is served all the same."""
    caller = await serve(Hang("Half"), Say("Hi."), max_streams=1)
    response, events = await start_and_read(caller, "Half")
    run = events[0].data
    path = f"/threads/{await caller.thread()}/runs"
    body = {"assistant_id": run["assistant_id"]}

    refused = await caller.send("POST", path, json={**body, "stream": True})
    also = await caller.send("GET", f"{run_path(run)}/stream")
    none = await caller.get(path)
    plain = await caller.settled(await caller.post(path, body))
    response.close()
    await caller.post(f"{run_path(run)}/cancel")
    await caller.reaches(run, "cancelled")
    with anyio.fail_after(20):
        while (await caller.send("GET", f"{run_path(run)}/stream")).status == 503:
            pass

    assert (refused.status, also.status) == (503, 503)
    assert refused.json["error"]["code"] == "too_many_streams"
    assert refused.headers["retry-after"] == "1"
    assert none["data"] == []
    assert plain["status"] == "completed"


async def test_stopping_server_ends_streams_without_done(
    tmp_path: Path, database: Database
) -> None:
    """Not cut in the middle of an event; the reader resumes at the next server."""
    db = database(tmp_path / "stop.db")
    server = LocalServer(db, ScriptedBackend([CallTools([Call("f")]), Hang("Half")]))
    await server.start()
    async with aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        waiting = await caller.settled(await caller.start())
        response, events = await start_and_read(caller, "Half")
        with anyio.fail_after(20):
            await server.aclose()
        rest = await rest_of(response)
        async with LocalServer(db, ScriptedBackend(["Whole."])) as following:
            caller = Caller(session, following.url)
            resumed = await caller.replay(events[0].data, after=events[6].id)
            old = await caller.replay(waiting)

    assert not rest.done
    assert rest.names in ([], ["run.queued"])
    assert events[6].name == "thread.message.in_progress"
    assert told_text(resumed.events) == "Whole."
    assert resumed.done
    assert old.names[-1] == "run.requires_action"


async def test_stopping_server_ends_streams_of_runs_that_wait(
    tmp_path: Path, database: Database
) -> None:
    """One in the queue has nothing to be put back; its reader is let go all the same."""
    db = database(tmp_path / "queue.db")
    server = LocalServer(db, ScriptedBackend([Hang(), Hang()]), max_concurrent_runs=1)
    await server.start()
    async with aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        await caller.reaches(await caller.start(), "in_progress")
        response, events = await start_and_read(caller, "thread.run.queued")
        with anyio.fail_after(20):
            await server.aclose()
        rest = await rest_of(response)

    assert [event.name for event in events] == ["thread.run.created", "thread.run.queued"]
    assert (rest.body, rest.done) == (b"", False)


async def test_deleted_thread_ends_its_streams(serve: Serve) -> None:
    """There is nothing more to tell."""
    caller = await serve(Hang("Half"))
    response, events = await start_and_read(caller, "Half")
    run = events[0].data

    await caller.send("DELETE", f"/threads/{run['thread_id']}")
    rest = await rest_of(response)

    assert (rest.body, rest.done) == (b"", False)


async def test_connection_is_used_again_after_a_stream(serve: Serve) -> None:
    """A stream that came to its end has left nothing behind on it."""
    caller = await serve("One.", "Two.")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        one = Caller(session, caller.url)
        first, second = await one.start_stream(), await one.start_stream()

    assert first.done
    assert second.done


async def test_stream_goes_on_where_another_reader_is_behind(serve: Serve) -> None:
    """Two readers of one run know nothing of each other."""
    caller = await serve(Say([f"word {number} " for number in range(100)], pause=0.005))
    response, events = await start_and_read(caller, "word 0")
    url = f"{caller.url}{run_path(events[0].data)}/stream"
    async with caller.session.get(url) as other:
        begun = await read_until(other, "word 1")
        first, second = await rest_of(response), await rest_of(other)

    assert [e.frame for e in [*events, *first.events]] == [
        e.frame for e in [*begun, *second.events]
    ]
