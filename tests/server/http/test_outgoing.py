"""Answers that nobody reads: of any kind, they are dropped, and hold little until then."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections import Counter
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from openai_runs.server import EchoBackend, LocalServer, Say, create_app
from openai_runs.server.http.outgoing import Reply
from tests.server.http.test_sse_readers import (
    deaf_connection,
    deaf_reader,
    narrow_server,
    receive,
    resident_bytes,
)
from tests.server.support import Caller, run_path

LARGE = "0123456789abcdef" * 60_000
"""960 kB; aiohttp's client warns of bodies of a megabyte."""


@web.middleware
async def flooding(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer some requests in place of the server, without end where asked for."""
    if "flood" in request.query:
        return web.Response(text=LARGE)
    if "pour" in request.query:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
    response = await handler(request)
    assert isinstance(response, web.StreamResponse)
    return response


def post(path: str, body: str, *headers: str) -> bytes:
    """Return a request with a body."""
    lines = [
        f"POST /v1{path} HTTP/1.1",
        "Host: localhost",
        *headers,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", body]).encode()


def get(path: str, *headers: str) -> bytes:
    """Return a request without one."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def drops(caplog: pytest.LogCaptureFixture) -> int:
    """Return how many readers were dropped so far."""
    return sum("a reader is dropped" in record.getMessage() for record in caplog.records)


async def until_dropped(caplog: pytest.LogCaptureFixture, readers: int = 1) -> None:
    """Return once so many were."""
    with anyio.fail_after(30):
        while drops(caplog) < readers:  # noqa: ASYNC110 - only the log tells
            await anyio.sleep(0.02)


async def large_thread(caller: Caller, messages: int = 4) -> str:
    """Return the path of the messages of a thread that has some large ones."""
    path = f"/threads/{await caller.thread()}/messages"
    for _ in range(messages):
        await caller.post(path, {"role": "user", "content": LARGE})
    return path


async def stuck_list(caller: Caller, path: str) -> socket.socket:
    """Return a reader that took the beginning of this list, and nothing more."""
    reader = await deaf_reader(caller, path)
    with anyio.fail_after(20):
        assert await asyncio.get_running_loop().sock_recv(reader, 12) == b"HTTP/1.1 200"
    return reader


KINDS: dict[str, str] = {
    "list": "a page of large messages",
    "object": "one of them",
    "replay": "what an Idempotency-Key remembers",
    "create": "what was just made",
    "health": "small ones, pipelined",
    "errors": "refusals, pipelined",
    "middleware": "one of a middleware",
    "poured": "one that never ends",
    "stream": "events",
}


async def request_of(kind: str, caller: Caller) -> bytes:
    """Return what asks for an answer of this kind, or for many."""
    path = await large_thread(caller)
    body = f'{{"role":"user","content":"{LARGE}"}}'
    if kind == "replay":
        await caller.post(
            path, {"role": "user", "content": LARGE}, headers={"Idempotency-Key": "k"}
        )
    if kind == "stream":
        run = await caller.settled(await caller.start())
        return get(f"/v1{run_path(run)}/stream")
    message = (await caller.get(f"{path}?limit=1"))["data"][0]["id"]
    return {
        "list": get(f"/v1{path}"),
        "object": get(f"/v1{path}/{message}"),
        "replay": post(path, body, "Idempotency-Key: k", "Content-Type: application/json"),
        "create": post(path, body),
        "health": get("/healthz") * 500,
        "errors": get("/v1/nothing") * 500,
        "middleware": get("/v1/assistants?flood"),
        "poured": get("/v1/assistants?pour"),
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
async def test_reader_is_dropped_when_it_takes_no_data_of_any_answer(
    caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Nothing that the server writes is held for a reader that does not read."""
    caplog.set_level(logging.WARNING, "openai_runs.server")
    async with narrow_server([Say([LARGE])], write_timeout=0.5, middlewares=[flooding]) as caller:
        reader = await deaf_connection(caller, await request_of(kind, caller))
        await until_dropped(caplog)
        received = 0
        with anyio.fail_after(20):
            while piece := await receive(reader):
                received += len(piece)
        reader.close()
        healthy = await caller.health()

    assert received < 256 * 1024
    assert healthy.status == 200


async def test_unread_answers_are_refused_beyond_the_bound_and_small_ones_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A 503 that says when to retry; once the reader is dropped, there is space again."""
    caplog.set_level(logging.WARNING, "openai_runs.server")
    async with narrow_server([], write_timeout=3, max_unsent_bytes=4_500_000) as caller:
        path = await large_thread(caller)
        body = {"role": "user", "content": LARGE}
        key = {"Idempotency-Key": "k"}
        await caller.post(path, body, headers=key)
        reader = await stuck_list(caller, path)
        refused = await caller.send("GET", path)
        created = await caller.send("POST", path, json=body)
        replayed = await caller.send("POST", path, json=body, headers=key)
        small = await caller.send("POST", "/threads", json={})
        await until_dropped(caplog)
        whole = await caller.send("GET", path)
        again = await caller.send("POST", path, json=body, headers=key)
        reader.close()

    assert [reply.status for reply in (refused, created, replayed)] == [503, 503, 503]
    assert refused.json["error"]["code"] == "too_many_unsent_bytes"
    assert refused.headers["retry-after"] == "1"
    assert "nothing was done" in created.message
    assert small.status == 200
    assert len(whole.json["data"]) == 5, "the refused create was made"
    assert again.headers["idempotent-replayed"] == "true"


async def test_refusal_says_that_the_request_was_carried_out_when_it_was() -> None:
    """A small request may have a large answer, which is known only then."""
    async with narrow_server([], write_timeout=30, max_unsent_bytes=4_500_000) as caller:
        path = await large_thread(caller)
        message = (await caller.get(f"{path}?limit=1"))["data"][0]["id"]
        reader = await stuck_list(caller, path)
        refused = await caller.send("POST", f"{path}/{message}", json={"metadata": {"a": "b"}})
        reader.close()
        with anyio.fail_after(20):
            while (changed := await caller.send("GET", f"{path}/{message}")).status == 503:
                pass

    assert refused.status == 503
    assert "was carried out" in refused.message
    assert changed.json["metadata"] == {"a": "b"}


async def test_only_answer_is_sent_when_it_alone_is_beyond_the_bound() -> None:
    """Nobody could ever read it otherwise."""
    async with narrow_server([], max_unsent_bytes=1000) as caller:
        path = await large_thread(caller)

        page = await caller.get(path)

    assert len(page["data"]) == 4


@pytest.mark.timeout(120)
async def test_stuck_readers_of_a_large_list_hold_bounded_memory() -> None:
    """Forty that ask for 8 MB each hold what is allowed, once, and not twice as much."""
    async with narrow_server([], write_timeout=60, max_unsent_bytes=32_000_000) as caller:
        path = await large_thread(caller, 8)
        await caller.get(path)
        before, peak = resident_bytes(), 0
        readers = []
        for _ in range(40):
            readers.append(await deaf_reader(caller, path))
            await caller.health()
            peak = max(peak, resident_bytes())
        loop = asyncio.get_running_loop()
        heads = [await loop.sock_recv(reader, 20) for reader in readers]
        for reader in readers:
            reader.close()

    found = Counter(head.split()[1].decode() for head in heads)
    assert found["200"] in {3, 4}
    assert found["503"] == 40 - found["200"]
    assert peak - before < 120_000_000


async def test_answer_that_was_read_holds_nothing_when_its_connection_is_idle() -> None:
    """The last answer of each is kept by aiohttp while the connection waits for a request."""
    async with LocalServer() as server, aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        path = await large_thread(caller)
        await caller.get(path)

        kept = [found for found in gc.get_objects() if isinstance(found, Reply)]

    assert sum(len(reply.body) for reply in kept if isinstance(reply.body, bytes)) < 65536


@pytest.mark.parametrize("kind", ["list", "stream"])
@pytest.mark.timeout(120)
async def test_slow_reader_gets_everything_when_each_slice_takes_longer_than_the_time_out(
    caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """It takes a little all the time; only one that takes nothing is dropped."""
    caplog.set_level(logging.WARNING, "openai_runs.server")
    text = LARGE[: 160 * 1024]
    async with narrow_server([Say([text])], write_timeout=1) as caller:
        run = await caller.settled(await caller.start(text))
        path = (
            f"/threads/{run['thread_id']}/messages" if kind == "list" else f"{run_path(run)}/stream"
        )
        reader = await deaf_reader(caller, path)
        received = b""
        with anyio.fail_after(100):
            while piece := await asyncio.get_running_loop().sock_recv(reader, 8192):
                received += piece
                await anyio.sleep(len(piece) / 50_000)
        reader.close()

    assert drops(caplog) == 0
    assert received.endswith(b"}" if kind == "list" else b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert len(received) > 2 * len(text)


async def stuck_kinds(caller: Caller) -> list[socket.socket]:
    """Return readers of all kinds that take nothing."""
    kinds = ("list", "health", "middleware", "poured", "stream")
    return [await deaf_connection(caller, await request_of(kind, caller)) for kind in kinds]


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "written to"])
@pytest.mark.timeout(60)
async def test_server_closes_when_its_readers_do_not_read(cancels: bool) -> None:
    """However long they might have taken: the time-outs are far longer than this test."""
    async with narrow_server(
        [Say([LARGE])],
        cancels=cancels,
        write_timeout=600,
        shutdown_timeout=600,
        middlewares=[flooding],
    ) as caller:
        readers = await stuck_kinds(caller)
        await caller.health()

        await caller.close()

        for reader in readers:
            reader.close()


@pytest.mark.timeout(60)
async def test_server_closes_when_a_refused_client_goes_on_sending() -> None:
    """A body that nobody reads is not waited for."""
    async with narrow_server(
        [], shutdown_timeout=600, api_key="secret", write_timeout=600
    ) as caller:
        head = b"POST /v1/threads HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{"
        sender = await deaf_connection(caller, head)
        answer = await asyncio.get_running_loop().sock_recv(sender, 12)

        await caller.close()

        sender.close()

    assert answer == b"HTTP/1.1 401"


async def test_reader_gets_its_whole_answer_when_the_server_closes_meanwhile() -> None:
    """Whoever reads is waited for."""
    async with narrow_server([], shutdown_timeout=30) as caller:
        path = await large_thread(caller)
        reader = await deaf_reader(caller, path)
        received = bytearray(await asyncio.get_running_loop().sock_recv(reader, 1000))

        async def read() -> None:
            while piece := await asyncio.get_running_loop().sock_recv(reader, 65536):
                received.extend(piece)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await caller.close()
        reader.close()

    assert received.endswith(b"}")
    assert len(received) > 4 * len(LARGE)


@pytest.mark.parametrize("mounted", [False, True], ids=["own runner", "mounted"])
async def test_reader_is_dropped_when_the_application_is_embedded(
    caplog: pytest.LogCaptureFixture, mounted: bool
) -> None:
    """Whoever runs the application, alone or below another one with middlewares of its own."""
    caplog.set_level(logging.WARNING, "openai_runs.server")

    @web.middleware
    async def marking(request: web.Request, handler: Any) -> web.StreamResponse:
        response = await handler(request)
        assert isinstance(response, web.StreamResponse)
        response.headers["x-outer"] = "yes"
        return response

    app = create_app(backend=EchoBackend(), write_timeout=0.5)
    root = app
    if mounted:
        root = web.Application(middlewares=[marking])
        root.add_subapp("/assistants-api", app)
    runner = web.AppRunner(root, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        prefix = "/assistants-api" if mounted else ""
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession() as session:
            caller = Caller(session, f"{address}{prefix}/v1")
            path = await large_thread(caller, 8)
            whole = await caller.send("GET", path)
            reader = await deaf_connection(
                Caller(session, f"{address}/v1"), get(f"{prefix}/v1{path}")
            )
            await until_dropped(caplog)
            reader.close()
    finally:
        await runner.cleanup()

    assert len(whole.json["data"]) == 8
    assert whole.headers.get("x-outer") == ("yes" if mounted else None)
