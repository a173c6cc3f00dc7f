"""The application: the endpoint table wired to the handlers, behind its gates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

import anyio
import msgspec
from aiohttp import web, web_app

from openai_runs._tracing import ServerTracing
from openai_runs.config import (
    BODY_TIMEOUT,
    DRAIN_GRACE,
    HEARTBEAT_INTERVAL,
    MAX_CONCURRENT_RUNS,
    MAX_HELD,
    MAX_IMPORT_BYTES,
    MAX_REQUEST_BYTES,
    MAX_STREAMS,
    MAX_UNSENT_BYTES,
    RUN_LIFETIME,
    WRITE_TIMEOUT,
)
from openai_runs.server.api_errors import invalid
from openai_runs.server.backends.base import Backend
from openai_runs.server.clock import Clock, SystemClock
from openai_runs.server.events.change_bus import ChangeBus
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.execution.engine import Engine
from openai_runs.server.http import handlers, request_parsing
from openai_runs.server.http.access import Check, check_local, checking_key
from openai_runs.server.http.handlers import Service
from openai_runs.server.http.health import Health
from openai_runs.server.http.imports import importing
from openai_runs.server.http.middlewares import answering, beginning, tracing_requests
from openai_runs.server.http.models import checking_model, model_handlers
from openai_runs.server.http.outgoing import Outgoing, Reply
from openai_runs.server.http.routes import SERVICE, STREAMER, Limits, find_handlers, route
from openai_runs.server.http.sse_response import Streamer
from openai_runs.server.objects.hosted_tools import HostedTools, check_policy
from openai_runs.server.store import PROOF_PATH, Store, is_nonce, is_url, open_store

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

__all__ = ["ENGINE", "PREFIX", "STORE", "AppOptions", "create_app"]

PREFIX: Final = "/v1"
"""Where the operations are; the health pages stand outside."""


@dataclass(frozen=True)
class _Settings:
    """What the application is started with."""

    db: str | Path | None
    backend: Backend
    clock: Clock
    run_lifetime: int
    hosted_tools: HostedTools
    max_concurrent_runs: int
    drain_grace: float
    max_streams: int
    max_held: int
    heartbeat_interval: float
    outgoing: Outgoing
    executes: bool
    tracing: ServerTracing | None


SETTINGS: Final = web.AppKey("settings", _Settings)
STORE: Final = web.AppKey("store", Store)
ENGINE: Final = web.AppKey("engine", Engine)
HEALTH: Final = web.AppKey("health", Health)


class AppOptions(TypedDict, total=False):
    """What both `create_app` and `LocalServer` take; `create_app` says what each is."""

    run_lifetime: int
    hosted_tools: HostedTools
    max_concurrent_runs: int
    max_request_bytes: int
    max_import_bytes: int
    body_timeout: float
    drain_grace: float
    max_streams: int
    max_held: int
    heartbeat_interval: float
    write_timeout: float
    max_unsent_bytes: int
    executes: bool
    tracing: ServerTracing | None
    clock: Clock | None


def create_app(
    db: str | Path | None = None,
    *,
    backend: Backend,
    api_key: str | None = None,
    loopback_only: bool = False,
    middlewares: Iterable[Middleware] = (),
    run_lifetime: int = RUN_LIFETIME,
    hosted_tools: HostedTools = "error",
    max_concurrent_runs: int = MAX_CONCURRENT_RUNS,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    max_import_bytes: int = MAX_IMPORT_BYTES,
    body_timeout: float = BODY_TIMEOUT,
    drain_grace: float = DRAIN_GRACE,
    max_streams: int = MAX_STREAMS,
    max_held: int = MAX_HELD,
    heartbeat_interval: float = HEARTBEAT_INTERVAL,
    write_timeout: float = WRITE_TIMEOUT,
    max_unsent_bytes: int = MAX_UNSENT_BYTES,
    executes: bool = True,
    tracing: ServerTracing | None = None,
    clock: Clock | None = None,
) -> web.Application:
    """Return an aiohttp application that serves the API under `/v1`.

    Args:
        db: The SQLite file, made if it is not there; None: a temporary one, removed at the end. Or
            the URL of a PostgreSQL database, `postgresql://...`, which processes share.
        backend: Where answers come from.
        api_key: What clients must send; None lets everybody in, so bind to loopback only.
        loopback_only: Refuse with 403 what names another host than loopback in `Host` or `Origin`,
            the health pages included. Browsers let any web page send requests to this machine;
            without a key, only these headers tell them from yours. `LocalServer` switches it
            on when it has no key; off here, since your application may have a name of its own.
        middlewares: Your own, inside ours: they see each request after the key was checked.
        run_lifetime: Seconds from a run's creation to its expiry.
        hosted_tools: What becomes of a run with `code_interpreter` or `file_search`, which nothing
            here can carry out: "error" refuses it, unless its `tool_choice` is "none"; "ignore"
            leaves them out of what the model is told, with a line in the log. Assistants may
            hold them either way.
        max_concurrent_runs: Runs executed at the same time; the others wait in the queue.
        max_request_bytes: Bytes of a request body that are read.
        max_import_bytes: Bytes of one thread that `POST /import` reads.
        body_timeout: Seconds a client may take to send them.
        drain_grace: Seconds that runs under way are given when the application stops.
        max_streams: Streams that may be open at the same time; more are a 503.
        max_held: Requests with `Prefer: wait` that may be held at the same time; more are answered
            at once.
        heartbeat_interval: Seconds of silence after which a stream carries a comment.
        write_timeout: Seconds a reader of any answer may receive no data before it is dropped.
        max_unsent_bytes: Bytes that answers of more than 64 KiB hold together until they are
            read; more are a 503, but for the only one.
        executes: Whether runs are executed in this process too; False leaves that to other
            processes on the same PostgreSQL database.
        tracing: An `openai_runs.otel.Tracing`, for spans of requests, runs and model calls; None:
            no spans.
        clock: Another clock, for tests.

    Raises:
        TypeError: `tracing` is something else.
        ValueError: `hosted_tools` is another text.
    """
    outgoing = Outgoing(max_unsent_bytes, write_timeout)
    outer = [answering(outgoing, _checks(api_key, loopback_only=loopback_only))]
    if tracing is not None:
        outer.insert(0, tracing_requests(tracing, PREFIX))
    if inner := list(middlewares):
        outer.append(_inflating(max_request_bytes, body_timeout))
    app = web.Application(middlewares=[*outer, *inner], client_max_size=max_request_bytes)
    _add_routes(app, Limits(max_request_bytes, body_timeout), outgoing, backend)
    app.router.add_route("POST", f"{PREFIX}/import", importing(max_import_bytes, body_timeout))
    app[SETTINGS] = _Settings(
        db=db,
        backend=backend,
        clock=clock or SystemClock(),
        run_lifetime=run_lifetime,
        hosted_tools=check_policy(hosted_tools),
        max_concurrent_runs=max_concurrent_runs,
        drain_grace=drain_grace,
        max_streams=max_streams,
        max_held=max_held,
        heartbeat_interval=heartbeat_interval,
        outgoing=outgoing,
        executes=executes,
        tracing=tracing,
    )
    return app


def _checks(api_key: str | None, *, loopback_only: bool) -> list[Check]:
    """Return what is checked of each request before anything else."""
    checks: list[Check] = [check_local] if loopback_only else []
    return [*checks, checking_key(api_key, _is_health)] if api_key else checks


def _is_health(request: web.Request) -> bool:
    return request.match_info.handler in _PAGES.values()


def _add_routes(app: web.Application, limits: Limits, outgoing: Outgoing, backend: Backend) -> None:
    """Add the operations, and what opens and closes the things they work with.

    Raises:
        LookupError: The handlers do not fit the table of endpoints.
    """
    for endpoint, handler in find_handlers(handlers).items():
        served = route(endpoint, handler, limits, outgoing)
        app.router.add_route(endpoint.method, PREFIX + endpoint.path, served)
    for path, model_handler in model_handlers(backend, outgoing).items():
        app.router.add_route("GET", PREFIX + path, model_handler)
    for path, page in _PAGES.items():
        app.router.add_route("GET", path, page)
    app.cleanup_ctx.append(_lifespan)
    app.on_response_prepare.append(beginning(outgoing))
    app.on_shutdown.append(_stop)


async def _lifespan(app: web.Application) -> AsyncIterator[None]:
    """Open the store and start the engine, and close both, also where the start fails.

    A cleanup context: aiohttp calls `on_cleanup` only where all of the application has started.
    """
    try:
        await _open(app)
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await _close(app)
        _forget_handlers()


def _forget_handlers() -> None:
    """Have aiohttp forget the handlers that it has put together with middlewares.

    It remembers 1,024 of them for the process, each with its application: a program that opens a
    server for each of its tests or users would keep all that was closed. Others are put together
    anew by their next request.
    """
    remembered = getattr(web_app, "_cached_build_middleware", None)  # private: it may be gone
    if remembered is not None:
        remembered.cache_clear()


async def _open(app: web.Application) -> None:
    settings = app[SETTINGS]
    change_bus = ChangeBus(settings.max_held, is_shared=is_url(settings.db))
    store = await open_store(settings.db, change_bus.publish)
    app[STORE] = store
    subscribers = Subscribers(settings.max_streams, is_shared=store.is_shared)
    app[SERVICE] = Service(
        store,
        change_bus,
        subscribers,
        settings.clock,
        settings.run_lifetime,
        settings.hosted_tools,
        checking_model(settings.backend),
        settings.tracing,
    )
    app[STREAMER] = Streamer(store, subscribers, settings.outgoing, settings.heartbeat_interval)
    app[ENGINE] = engine = Engine(
        store,
        settings.backend,
        settings.clock,
        subscribers,
        max_concurrent_runs=settings.max_concurrent_runs,
        executes=settings.executes,
        tracing=settings.tracing,
    )
    app[HEALTH] = Health(engine, store, settings.clock)
    change_bus.subscribe(subscribers.on_change)
    change_bus.subscribe(engine.on_change)
    await engine.start()


async def _stop(app: web.Application) -> None:
    """Let runs under way finish or put them back, then answer held requests and end streams."""
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


def _inflating(max_bytes: int, timeout: float) -> Middleware:
    """Return the middleware that gives the user's own the text of compressed bodies."""

    @web.middleware
    async def inflate(request: web.Request, handler: Handler) -> web.StreamResponse:
        found = request.match_info
        is_read = found.http_exception is None and not _is_health(request)
        if is_read and "content-encoding" in request.headers:
            await request_parsing.read_body(request, max_bytes, timeout)
        return await handler(request)

    return inflate


async def _health(request: web.Request) -> web.Response:
    """Answer whether the server is at work."""
    page = request.app[HEALTH].live()
    return Reply(request.app[SETTINGS].outgoing, page.status_code, page.body)


async def _readiness(request: web.Request) -> web.Response:
    """Answer whether it can carry out runs now, and how many wait."""
    page = await request.app[HEALTH].ready()
    return Reply(request.app[SETTINGS].outgoing, page.status_code, page.body)


async def _prove(request: web.Request) -> web.Response:
    """Answer with the proof that this server has its database, before a client sends its key."""
    nonce = request.query.get("nonce", "")
    if not is_nonce(nonce):
        message = "Invalid 'nonce': expected 64 hexadecimal digits."
        raise invalid(message, "nonce")
    proof = {"proof": request.app[STORE].prove(nonce)}
    return Reply(request.app[SETTINGS].outgoing, 200, msgspec.json.encode(proof))


_PAGES: Final = {"/healthz": _health, "/readyz": _readiness, PROOF_PATH: _prove}
"""What stands outside of the API, and needs no key."""
