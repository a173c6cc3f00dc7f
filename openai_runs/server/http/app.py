"""The application: the endpoint table wired to the handlers, behind its gates."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec
from aiohttp import web

from openai_runs._protocol.endpoints import STREAM_RUN, Endpoint
from openai_runs._protocol.hosts import is_loopback_authority, is_loopback_origin
from openai_runs.config import (
    BODY_TIMEOUT,
    DRAIN_GRACE,
    HEARTBEAT_INTERVAL,
    MAX_CONCURRENT_RUNS,
    MAX_HELD,
    MAX_REQUEST_BYTES,
    MAX_STREAMS,
    MAX_UNSENT_BYTES,
    RUN_LIFETIME,
    WRITE_TIMEOUT,
)
from openai_runs.server.api_errors import Replay, StoreUnavailable, foreign, unauthorized
from openai_runs.server.backends.base import Backend
from openai_runs.server.clock import Clock, SystemClock
from openai_runs.server.events.change_bus import ChangeBus
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.execution.engine import Engine
from openai_runs.server.http import request_parsing
from openai_runs.server.http.handlers import HANDLERS, Call, Service
from openai_runs.server.http.middlewares import answering, beginning
from openai_runs.server.http.outgoing import Outgoing, Reply
from openai_runs.server.http.sse_response import Streamer
from openai_runs.server.objects.builders import given
from openai_runs.server.store import SQLITE_VERSION, Store, StreamStart, open_store
from openai_runs.types.base import Answer

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

__all__ = ["ENGINE", "PREFIX", "STORE", "AppOptions", "create_app"]

PREFIX: Final = "/v1"
"""Where the operations are; the health page stands outside."""


@dataclass(frozen=True)
class _Settings:
    """What the application is started with."""

    db: str | Path | None
    backend: Backend
    clock: Clock
    run_lifetime: int
    max_concurrent_runs: int
    drain_grace: float
    max_streams: int
    max_held: int
    heartbeat_interval: float
    outgoing: Outgoing


_KNOWN_HOSTS: Final = 64
"""Values of such a header that are looked at once; clients send the same ones all the time."""
_HOME: Final[tuple[tuple[str, list[str], Callable[[str], bool]], ...]] = (
    ("Host", [""], lru_cache(_KNOWN_HOSTS)(is_loopback_authority)),
    ("Origin", [], lru_cache(_KNOWN_HOSTS)(is_loopback_origin)),
)
"""Header, what stands for it where it is missing, and whether its value is this machine."""

SETTINGS: Final = web.AppKey("settings", _Settings)
STORE: Final = web.AppKey("store", Store)
ENGINE: Final = web.AppKey("engine", Engine)
SERVICE: Final = web.AppKey("service", Service)
STREAMER: Final = web.AppKey("streamer", Streamer)


class AppOptions(TypedDict, total=False):
    """What `create_app` and `LocalServer` take alike; `create_app` says what each is."""

    run_lifetime: int
    max_concurrent_runs: int
    max_request_bytes: int
    body_timeout: float
    drain_grace: float
    max_streams: int
    max_held: int
    heartbeat_interval: float
    write_timeout: float
    max_unsent_bytes: int
    clock: Clock | None


def create_app(
    db: str | Path | None = None,
    *,
    backend: Backend,
    api_key: str | None = None,
    loopback_only: bool = False,
    middlewares: Iterable[Middleware] = (),
    run_lifetime: int = RUN_LIFETIME,
    max_concurrent_runs: int = MAX_CONCURRENT_RUNS,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    body_timeout: float = BODY_TIMEOUT,
    drain_grace: float = DRAIN_GRACE,
    max_streams: int = MAX_STREAMS,
    max_held: int = MAX_HELD,
    heartbeat_interval: float = HEARTBEAT_INTERVAL,
    write_timeout: float = WRITE_TIMEOUT,
    max_unsent_bytes: int = MAX_UNSENT_BYTES,
    clock: Clock | None = None,
) -> web.Application:
    """Return an aiohttp application that serves the API under `/v1`.

    Assistants may hold hosted tools (`code_interpreter`, `file_search`); a run that would
    use one is refused, since nothing here could carry it out.

    Args:
        db: The SQLite file, made if it is not there; None: a temporary one, removed at the end.
        backend: Where answers come from.
        api_key: What clients must send; None lets everybody in, so bind to loopback only.
        loopback_only: Refuse with 403 what names another host than loopback in `Host` or `Origin`,
            the health page included. Browsers let any web page send requests to this machine;
            without a key, only these headers tell them from yours. `LocalServer` switches it
            on when it has no key; off here, since your application may have a name of its own.
        middlewares: Your own, inside ours: they see each request after the key was checked.
        run_lifetime: Seconds from a run's creation to its expiry.
        max_concurrent_runs: Runs executed at the same time; the others wait in the queue.
        max_request_bytes: Bytes of a request body that are read.
        body_timeout: Seconds a client may take to send them.
        drain_grace: Seconds that runs under way are given when the application stops.
        max_streams: Streams that may be open at the same time; more are a 503.
        max_held: Requests with `Prefer: wait` that may be held at the same time; more are answered
            at once.
        heartbeat_interval: Seconds of silence after which a stream carries a comment.
        write_timeout: Seconds a reader of any answer may take no data before it is dropped.
        max_unsent_bytes: Bytes that answers of more than 64 KiB hold together until they are
            read; more are a 503, but for the only one.
        clock: Another clock, for tests.
    """
    outgoing = Outgoing(max_unsent_bytes, write_timeout)
    outer = [answering(outgoing), *_gates(api_key, loopback_only=loopback_only)]
    if inner := list(middlewares):
        outer.append(_inflating(max_request_bytes, body_timeout))
    app = web.Application(middlewares=[*outer, *inner], client_max_size=max_request_bytes)
    _add_routes(app, max_request_bytes, body_timeout)
    app[SETTINGS] = _Settings(
        db=db,
        backend=backend,
        clock=clock or SystemClock(),
        run_lifetime=run_lifetime,
        max_concurrent_runs=max_concurrent_runs,
        drain_grace=drain_grace,
        max_streams=max_streams,
        max_held=max_held,
        heartbeat_interval=heartbeat_interval,
        outgoing=outgoing,
    )
    app.on_response_prepare.append(beginning(outgoing))
    return app


def _add_routes(app: web.Application, max_bytes: int, timeout: float) -> None:
    """Add the operations, and what opens and closes the things they work with."""
    for endpoint, handler in HANDLERS.items():
        route = _route(endpoint, handler, max_bytes, timeout)
        app.router.add_route(endpoint.method, PREFIX + endpoint.path, route)
    app.router.add_route("GET", "/healthz", _health)
    app.on_startup.append(_start)
    app.on_shutdown.append(_stop)
    app.on_cleanup.append(_close)


async def _start(app: web.Application) -> None:
    """Open the store and set the engine to work."""
    settings = app[SETTINGS]
    change_bus = ChangeBus(settings.max_held)
    store = await open_store(settings.db, change_bus.publish)
    app[STORE] = store
    subscribers = Subscribers(settings.max_streams)
    app[SERVICE] = Service(store, change_bus, subscribers, settings.clock, settings.run_lifetime)
    app[STREAMER] = Streamer(store, subscribers, settings.outgoing, settings.heartbeat_interval)
    app[ENGINE] = engine = Engine(
        store,
        settings.backend,
        settings.clock,
        subscribers,
        max_concurrent_runs=settings.max_concurrent_runs,
    )
    change_bus.listen(subscribers.hear)
    change_bus.listen(engine.hear)
    await engine.start()


async def _stop(app: web.Application) -> None:
    """Let runs under way finish or put them back, then let go of held requests and streams."""
    if ENGINE in app:
        await app[ENGINE].drain(app[SETTINGS].drain_grace)
        app[SERVICE].change_bus.close()
        app[SERVICE].subscribers.close()
    app[SETTINGS].outgoing.stop()


async def _close(app: web.Application) -> None:
    """Close everything that was opened, in the opposite order."""
    app[SETTINGS].outgoing.close()
    try:
        if ENGINE in app:
            await app[ENGINE].aclose()
    finally:
        try:
            if STORE in app:
                await app[STORE].aclose()
        finally:
            closing = getattr(app[SETTINGS].backend, "aclose", None)
            if closing is not None:
                await closing()


def _route(
    endpoint: Endpoint[Any],
    handler: Callable[[Call], Awaitable[Answer | StreamStart | bytes]],
    max_bytes: int,
    timeout: float,
) -> Handler:
    """Return what aiohttp calls for one row of the table."""
    resumes = endpoint is STREAM_RUN

    async def serve(request: web.Request) -> web.StreamResponse:
        service, outgoing = request.app[SERVICE], request.app[SETTINGS].outgoing
        text = await request_parsing.read_body(request, max_bytes, timeout)
        sent = None if endpoint.body is None else request_parsing.decode_body(endpoint.body, text)
        posted = request.method == "POST"
        if posted:  # what is made of a large body is a large answer
            outgoing.admit(len(text))
        call = Call(
            service=service,
            ids=request.match_info,
            query=request.query,
            body=sent,
            once=request_parsing.once_for(request, text, service.now) if posted else None,
            wait=request_parsing.preferred_wait(request.headers.getall("prefer", ())),
            streamed=resumes or bool(given(getattr(sent, "stream", None))),
            position=request_parsing.last_event(request.headers) if resumes else None,
        )
        if call.streamed:
            return await request.app[STREAMER].answer(request, lambda: handler(call), call.headers)
        try:
            answer = await handler(call)
        except Replay as replay:
            outgoing.admit(len(replay.body))
            raise
        body = answer if isinstance(answer, bytes) else msgspec.json.encode(answer)
        outgoing.admit(len(body), done=posted)
        return Reply(outgoing, 200, body, call.headers)

    return serve


@web.middleware
async def _keeping_home(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let only requests to and from this machine in.

    A page whose name was rebound to 127.0.0.1 sends that name as `Host`; a page of another
    site that posts across, which needs no preflight for `text/plain`, sends its `Origin`.
    """
    for name, missing, is_ours in _HOME:
        for value in request.headers.getall(name, missing):
            if not is_ours(value):
                raise foreign(name, value)
    return await handler(request)


def _gates(api_key: str | None, *, loopback_only: bool) -> list[Middleware]:
    """Return the middlewares that let not everybody in."""
    gates: list[Middleware] = [_keeping_home] if loopback_only else []
    return [*gates, _checking_key(api_key)] if api_key else gates


def _checking_key(api_key: str) -> Middleware:
    """Return the middleware that lets only the holders of the key in."""
    expected = api_key.encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.handler is not _health:
            presented = request_parsing.presented_key(request.headers)
            sent = presented.encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(sent, expected):
                raise unauthorized(presented)
        return await handler(request)

    return check


def _inflating(max_bytes: int, timeout: float) -> Middleware:
    """Return the middleware that gives the user's own the text of compressed bodies."""

    @web.middleware
    async def inflate(request: web.Request, handler: Handler) -> web.StreamResponse:
        found = request.match_info
        is_read = found.http_exception is None and found.handler is not _health
        if is_read and "content-encoding" in request.headers:
            await request_parsing.read_body(request, max_bytes, timeout)
        return await handler(request)

    return inflate


async def _health(request: web.Request) -> web.Response:
    """Answer whether runs are being carried out, and how many wait."""
    service, engine = request.app[SERVICE], request.app[ENGINE]
    outgoing = request.app[SETTINGS].outgoing
    now = service.now
    try:
        await service.store.probe(now)
        counts = await service.store.counts()
    except StoreUnavailable as problem:
        trouble = {"status": "unavailable", "error": problem.message}
        return Reply(outgoing, 503, msgspec.json.encode(trouble))
    oldest = counts.oldest_created_at
    facts = {
        "status": "ok" if engine.alive else "stopped",
        "queued": counts.by_status.get("queued", 0),
        "in_progress": counts.by_status.get("in_progress", 0),
        "requires_action": counts.by_status.get("requires_action", 0),
        "cancelling": counts.by_status.get("cancelling", 0),
        "failed": engine.failed,
        "oldest_seconds": 0 if oldest is None else max(0, now - oldest),
        "sqlite": SQLITE_VERSION,
    }
    return Reply(outgoing, 200 if engine.alive else 503, msgspec.json.encode(facts))
