"""A relayed stream under the frameworks it is meant for, to clients on real sockets."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
import pytest
from aiohttp import web
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from openai_runs import AsyncClient, relay
from openai_runs.errors import APIStatusError
from openai_runs.server import LocalServer
from openai_runs.testing import Cut, FaultProxy
from tests.canaries import CANARY_KEY
from tests.relaying import (
    Paced,
    frames_of,
    paced,
    serve_aiohttp,
    serve_asgi,
    started,
    text_of,
    until_text,
)

PATH = "/threads/{thread_id}/runs/{run_id}/events"


def fastapi_of(client: AsyncClient, **options: Any) -> FastAPI:
    """Return a back end that relays any run it is asked for."""
    app = FastAPI()

    @app.exception_handler(APIStatusError)
    async def refuse(request: Request, error: APIStatusError) -> JSONResponse:
        return JSONResponse({"detail": "refused"}, status_code=error.status_code)

    @app.get(PATH)
    async def events(thread_id: str, run_id: str, request: Request) -> StreamingResponse:
        last = request.headers.get("last-event-id")
        stream = client.runs.follow(run_id, thread_id=thread_id, last_event_id=last)
        return StreamingResponse(await relay.sse(stream, **options), headers=relay.HEADERS)

    return app


def aiohttp_of(client: AsyncClient, **options: Any) -> web.Application:
    """Return the same for aiohttp."""

    async def events(request: web.Request) -> web.StreamResponse:
        last = request.headers.get("last-event-id")
        thread_id, run_id = request.match_info["thread_id"], request.match_info["run_id"]
        stream = client.runs.follow(run_id, thread_id=thread_id, last_event_id=last)
        try:
            async with relay.sse(stream, **options) as frames:
                response = web.StreamResponse(headers=relay.HEADERS)
                await response.prepare(request)
                async for frame in frames:
                    await response.write(frame)
        except APIStatusError as error:
            return web.json_response({"detail": "refused"}, status=error.status_code)
        except ConnectionError:
            pass  # the browser has left
        return response

    app = web.Application()
    app.router.add_get(PATH, events)
    return app


Serve = Callable[..., AbstractAsyncContextManager[str]]
FRAMEWORKS: dict[str, Serve] = {
    "fastapi": lambda client, **options: serve_asgi(fastapi_of(client, **options)),
    "aiohttp": lambda client, **options: serve_aiohttp(aiohttp_of(client, **options)),
}


@pytest.fixture(params=FRAMEWORKS)
def serve(request: pytest.FixtureRequest) -> Serve:
    """Each framework in turn."""
    return FRAMEWORKS[request.param]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A browser."""
    async with aiohttp.ClientSession() as opened:
        yield opened


def place_of(run: Any) -> str:
    """Return the path of a run's events."""
    return PATH.format(thread_id=run.thread_id, run_id=run.id)


async def test_browser_reads_the_events_while_they_come(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    """The first words are there before the model has said the last."""
    model = Paced()
    async with paced(model) as client, serve(client) as url:
        run = await started(client)
        async with session.get(url + place_of(run)) as response:
            begin = await until_text(response.content.iter_any(), "Hello ")
            model.go_on.set()
            rest = await response.read()

    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    seen = frames_of(begin + rest)
    assert text_of(seen) == model.text
    assert seen[-1].event == "done"


async def test_browser_whose_connection_is_cut_goes_on_where_it_was(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    """At every event's end, with the last id it has seen: the same frames, once each."""
    model = Paced()
    model.go_on.set()
    async with paced(model) as client, serve(client) as url, FaultProxy(url) as proxy:
        run = await started(client)
        await client.runs.wait(run)
        place = proxy.url + place_of(run)
        async with session.get(place) as response:
            whole = await response.read()
        wanted = [one for one in frames_of(whole) if one.event != "done"]
        ends = [at for at in range(len(whole)) if whole[:at].endswith(b"\n\n")]
        for at in ends[1:-1]:
            proxy.plan(Cut(after=at))
            begin = await read_until_cut(session, place)
            last = frames_of(begin)[-1].id
            async with session.get(place, headers={"Last-Event-ID": last}) as response:
                rest = await response.read()
            got = [one for one in frames_of(begin) + frames_of(rest) if one.event != "done"]
            assert [one.id for one in got] == [one.id for one in wanted]

    assert text_of(wanted) == model.text


async def read_until_cut(session: aiohttp.ClientSession, place: str) -> bytes:
    """Return what comes before the connection is lost."""
    body = b""
    async with session.get(place) as response:
        try:
            async for part in response.content.iter_any():
                body += part
        except aiohttp.ClientPayloadError:
            return body
    message = "the connection was not lost"
    raise AssertionError(message)


async def test_refusal_is_an_answer_with_an_error_status(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    """And not a stream that breaks: nothing was sent yet."""
    async with paced(Paced()) as client, serve(client) as url:
        thread = await client.threads.create()
        path = PATH.format(thread_id=thread.id, run_id="run_none")
        async with session.get(url + path) as response:
            body = await response.json()

    assert (response.status, body) == (404, {"detail": "refused"})


@pytest.mark.parametrize("on_disconnect", ["continue", "cancel"])
async def test_browser_that_leaves_has_the_policy_carried_out(
    serve: Serve, session: aiohttp.ClientSession, on_disconnect: str
) -> None:
    """The framework notices, closes the stream, and the run goes on or is cancelled."""
    model = Paced()
    options = {"on_disconnect": on_disconnect, "heartbeat": 0.01}
    async with paced(model) as client, serve(client, **options) as url:
        run = await started(client)
        async with session.get(url + place_of(run)) as response:
            await until_text(response.content.iter_any(), "Hello ")
            response.close()
        if on_disconnect == "continue":
            model.go_on.set()
        run = await client.runs.wait(run)

    assert run.status == {"continue": "completed", "cancel": "cancelled"}[on_disconnect]


LONG = ["x" * 65_536] * 320
"""Far more than all buffers on the way hold."""


async def test_browser_that_reads_nothing_piles_nothing_up(serve: Serve) -> None:
    """The run ends, and most of its text waits at the server until it is asked for."""
    model = Paced(LONG)
    async with (
        LocalServer(backend=model) as server,
        FaultProxy(server.url) as upstream,
        AsyncClient(upstream.url, api_key=CANARY_KEY) as client,
        AsyncClient(server.url, api_key=CANARY_KEY) as other,
        serve(client) as url,
    ):
        run = await started(other)
        with unread(url, place_of(run)):
            await until_said(other, run, len(LONG))
            model.go_on.set()
            run = await other.runs.wait(run)
            (relayed,) = [one for one in upstream.answers if one.request.path.endswith("/stream")]
            passed = len(relayed.body)

    assert run.status == "completed"
    assert 0 < passed < len("".join(LONG))


async def test_browser_that_reads_nothing_and_leaves_has_its_run_cancelled(serve: Serve) -> None:
    """Also where the framework was waiting for it to take what was sent."""
    model = Paced(LONG)
    async with paced(model) as client, serve(client, on_disconnect="cancel") as url:
        run = await started(client)
        with unread(url, place_of(run)):
            await until_said(client, run, len(LONG))
        run = await client.runs.wait(run)

    assert run.status == "cancelled"


async def until_said(client: AsyncClient, run: Any, pieces: int) -> None:
    """Return once another reader has seen so many pieces of the text."""
    async with client.runs.follow(run.id, thread_id=run.thread_id) as stream:
        async for event in stream:
            pieces -= event.event == "thread.message.delta"
            if not pieces:
                return


class unread:  # noqa: N801 - reads as a verb
    """A browser that asks for a stream, and reads nothing of it."""

    def __init__(self, url: str, path: str) -> None:
        """Ask, with as little room as there can be."""
        parts = urlsplit(url)
        assert parts.hostname
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((parts.hostname, parts.port))
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def __enter__(self) -> None:
        """Read nothing."""

    def __exit__(self, *raised: object) -> None:
        """Leave."""
        self._socket.close()


async def test_server_that_tells_of_a_disconnect_by_failing_has_the_policy_carried_out() -> None:
    """Newer ASGI servers say nothing until something is sent: the frames are just forgotten."""
    model = Paced()
    async with paced(model) as client:
        run = await started(client)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "method": "GET",
            "path": place_of(run),
            "raw_path": place_of(run).encode(),
            "query_string": b"",
            "headers": [],
        }
        gc.disable()
        try:
            with pytest.raises(ClientDisconnect):
                await fastapi_of(client, on_disconnect="cancel")(scope, never, gone)
            run = await client.runs.wait(run)
        finally:
            gc.enable()

    assert run.status == "cancelled"


async def never() -> dict[str, Any]:
    """Have the browser say nothing more."""
    await anyio.sleep_forever()
    raise AssertionError


async def gone(message: MutableMapping[str, Any]) -> None:
    """Have the browser be gone once it has the first words."""
    if b"Hel" in message.get("body", b""):
        raise OSError
