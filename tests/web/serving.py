"""A chat under each framework, before the real server, and a browser without a page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import msgspec
from aiohttp import web
from fastapi import FastAPI, Request, Response

from openai_runs import AsyncClient
from openai_runs.server import LocalServer, ScriptedBackend
from openai_runs.web import Chat, History
from openai_runs.web import aiohttp as on_aiohttp
from openai_runs.web import starlette as on_starlette
from tests.canaries import CANARY_KEY
from tests.relaying import Paced, frames_of, serve_aiohttp, serve_asgi

FRAMEWORKS = ["fastapi", "aiohttp"]


class Browser:
    """One user's browser."""

    def __init__(self, session: aiohttp.ClientSession, url: str, user: str) -> None:
        self._session = session
        self._url = url
        self._headers = {"X-User": user}

    def send(
        self, text: str, key: str | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """POST a message."""
        headers = {**self._headers, **({} if key is None else {"Idempotency-Key": key})}
        return self._session.post(f"{self._url}/chat", json=text, headers=headers)

    def follow(
        self, run_id: str | None = None, last: str = ""
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """GET the answer at work, or a run's rest."""
        headers = {**self._headers, **({"Last-Event-ID": last} if last else {})}
        params = {} if run_id is None else {"run_id": run_id}
        return self._session.get(f"{self._url}/chat/events", params=params, headers=headers)

    async def stop(self) -> bool:
        """POST a stop, and return the answer."""
        async with self._session.post(f"{self._url}/chat/stop", headers=self._headers) as response:
            stopped: bool = await response.json()
            return stopped

    async def history(self, before: str | None = None) -> dict[str, Any]:
        """GET a page of the history."""
        params = {} if before is None else {"before": before}
        url = f"{self._url}/chat/history"
        async with self._session.get(url, params=params, headers=self._headers) as response:
            page: dict[str, Any] = await response.json()
            return page

    async def ask(self, text: str) -> list[Any]:
        """Send a message, and return the frames of its answer."""
        async with self.send(text) as response:
            return frames_of(await response.read())


class Site:
    """A back end of one framework, and what is behind it."""

    def __init__(self, session: aiohttp.ClientSession, client: AsyncClient, assistant: str) -> None:
        self.session = session
        self.client = client
        """A client of the test's own."""
        self.assistant_id = assistant
        self.url = ""
        self.chat: Chat

    def browser(self, user: str = "ada") -> Browser:
        """Return the browser of a user."""
        return Browser(self.session, self.url, user)


@asynccontextmanager
async def serve_chat(
    framework: str, model: ScriptedBackend | Paced, folder: Path, **options: Any
) -> AsyncIterator[Site]:
    """Serve a chat that this model answers."""
    async with (
        LocalServer(backend=model) as server,
        AsyncClient(server.url, api_key=CANARY_KEY) as client,
        aiohttp.ClientSession() as session,
    ):
        assistant = await client.assistants.create(model="m")
        site = Site(session, client, assistant.id)
        async with serve_site(framework, site, partial(AsyncClient, server.url), folder, **options):
            yield site


@asynccontextmanager
async def serve_site(
    framework: str, site: Site, make_client: Any, folder: Path, **options: Any
) -> AsyncIterator[None]:
    """Serve the back end of a site."""

    def make_chat(client: AsyncClient) -> Chat:
        options.setdefault("store", folder / "chat.db")
        site.chat = Chat(client, assistant_id=site.assistant_id, **options)
        return site.chat

    serve = {"fastapi": _fastapi, "aiohttp": _aiohttp}[framework]
    async with serve(make_client, make_chat) as site.url:
        yield


def _fastapi(make_client: Any, make_chat: Any) -> AbstractAsyncContextManager[str]:
    app = FastAPI(
        lifespan=on_starlette.lifespan(make_client, chat=make_chat),
        exception_handlers=on_starlette.EXCEPTION_HANDLERS,
    )

    @app.post("/chat")
    async def send(request: Request) -> Response:
        text, user = await request.json(), request.headers["x-user"]
        key = request.headers.get("idempotency-key")
        return on_starlette.respond(await request.state.chat.send(user, text, idempotency_key=key))

    @app.get("/chat/events")
    async def events(request: Request, run_id: str | None = None) -> Response:
        last, user = request.headers.get("last-event-id"), request.headers["x-user"]
        frames = await request.state.chat.follow(user, run_id, last_event_id=last)
        return on_starlette.respond(frames)

    @app.post("/chat/stop")
    async def stop(request: Request) -> bool:
        stopped: bool = await request.state.chat.stop(request.headers["x-user"])
        return stopped

    @app.get("/chat/history")
    async def history(request: Request, before: str | None = None) -> History:
        page: History = await request.state.chat.history(
            request.headers["x-user"], before=before, limit=3
        )
        return page

    return serve_asgi(app, force=False)  # the application is closed, too


def _aiohttp(make_client: Any, make_chat: Any) -> AbstractAsyncContextManager[str]:
    async def send(request: web.Request) -> web.StreamResponse:
        text, user = await request.json(), request.headers["X-User"]
        key = request.headers.get("Idempotency-Key")
        frames = await request.app[on_aiohttp.CHAT].send(user, text, idempotency_key=key)
        return await on_aiohttp.respond(request, frames)

    async def events(request: web.Request) -> web.StreamResponse:
        frames = await request.app[on_aiohttp.CHAT].follow(
            request.headers["X-User"],
            request.query.get("run_id"),
            last_event_id=request.headers.get("Last-Event-ID"),
        )
        return await on_aiohttp.respond(request, frames)

    async def stop(request: web.Request) -> web.Response:
        return web.json_response(await request.app[on_aiohttp.CHAT].stop(request.headers["X-User"]))

    async def history(request: web.Request) -> web.Response:
        page = await request.app[on_aiohttp.CHAT].history(
            request.headers["X-User"], before=request.query.get("before"), limit=3
        )
        return web.json_response(asdict(page))

    app = web.Application(middlewares=[on_aiohttp.error_middleware])
    app.cleanup_ctx.append(on_aiohttp.cleanup_ctx(make_client, chat=make_chat))
    app.router.add_post("/chat", send)
    app.router.add_get("/chat/events", events)
    app.router.add_post("/chat/stop", stop)
    app.router.add_get("/chat/history", history)
    return serve_aiohttp(app)


def statuses_of(frames: list[Any]) -> list[str]:
    """Return the statuses of the run that frames say, one after the other."""
    return [
        msgspec.json.decode(one.data)["status"]
        for one in frames
        if one.event.startswith("thread.run.")
    ]


def ids_of(frames: list[Any]) -> tuple[str, str]:
    """Return the run's id, and that of the last event."""
    (run_id, *_) = [
        msgspec.json.decode(one.data)["id"] for one in frames if one.event.startswith("thread.run.")
    ]
    return run_id, frames[-1].id


async def is_idle(site: Site, user: str = "ada") -> None:
    """Return once nothing of a user's is answered or waits."""
    while (await site.chat.status(user)).is_busy:  # noqa: ASYNC110 - another task's doing
        await anyio.sleep(0.01)


async def until_busy(site: Site, waiting: int, user: str = "ada") -> None:
    """Return once a run is at work, and so many messages wait for another."""
    status = await site.chat.status(user)
    while status.run_id is None or len(status.waiting) < waiting:
        await anyio.sleep(0.01)
        status = await site.chat.status(user)
