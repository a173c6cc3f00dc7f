"""HTTP connections: what becomes of a request that is no HTTP, before any handler sees it.

aiohttp writes the line that it cannot parse into its log and into its answer: with a key that
ends in a line break, or a prompt behind a `Content-Length` that is too short. Here the log
names the kind of fault and the peer, at most once a minute, and the answer quotes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final, TypeAlias

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from openai_runs.config import REFUSAL_LOG_INTERVAL
from openai_runs.server.api_errors import Refusal, bad_expectation, broken, not_http
from openai_runs.server.http.middlewares import STANDING_HEADERS, new_request_id
from openai_runs.server.log_filter import filtered_logger

__all__ = ["ApiRunner", "Connections"]

_Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_LOOK_AGAIN: Final = 0.1
"""Seconds after which a full server looks again for a connection that has become idle."""
_REFUSED: Final = (HttpProcessingError, web.RequestPayloadError)

_logger = filtered_logger("openai_runs.server.http")


class ApiRunner(web.AppRunner):
    """An `aiohttp.web.AppRunner` that neither logs nor answers with what a request held.

    `LocalServer` runs in one. Use it for an application of yours that `create_app` is part
    of: aiohttp's own runner logs a line that it cannot parse, with the key that is in it.

    Args:
        app: The application.
        now: Seconds of a clock, by which refused requests are logged at most once a minute.
        options: What else `aiohttp.web.AppRunner` takes, but for `logger`: that is
            `openai_runs.server.http`. There is no access log unless you pass one, since it
            holds the query of each URL. Bodies are inflated by `create_app`, once the key was
            checked, and not before (`auto_decompress`).
    """

    def __init__(
        self, app: web.Application, *, now: Callable[[], float] = monotonic, **options: Any
    ) -> None:
        """Keep the settings; `setup` starts the application."""
        options.setdefault("access_log", None)
        options.setdefault("auto_decompress", False)  # a body is inflated once the key was checked
        super().__init__(app, **options)
        self._refusals = _RefusalLog(now)

    async def cleanup(self) -> None:
        """Stop serving, and log how many refused requests no line has counted yet.

        Cancellation: as of `aiohttp.web.AppRunner.cleanup`; nothing more is logged.
        """
        await super().cleanup()
        self._refusals.close()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        options = {**made._kwargs, "logger": _logger, "debug": False}
        return Connections(
            _expecting(made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            refusals=self._refusals,
            **options,
        )


class Connections(web.Server):
    """All connections of one runner; makes ours in place of aiohttp's.

    Attributes:
        opening: Sockets that were accepted and are not yet among the connections.
    """

    def __init__(self, handler: _Handler, **options: Any) -> None:
        """Start with none; the options are aiohttp's."""
        super().__init__(handler, **options)
        self.opening = 0
        self._open: set[_Connection] = set()
        self._closed = anyio.Event()
        self._waiting = 0

    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _Connection(self, loop=self._loop, **self._kwargs)

    @property
    def count(self) -> int:
        """Return how many descriptors connections have."""
        return self.opening + len(self._open)

    @property
    def is_full(self) -> bool:
        """Return whether others wait for a connection to end."""
        return self._waiting > 0

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection."""
        super().connection_made(handler, transport)
        assert isinstance(handler, _Connection)
        self._open.add(handler)
        self.opening = max(0, self.opening - 1)  # 0: accepted by another site than ours

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Count it no longer; its descriptor is closed when this returns."""
        super().connection_lost(handler, exc)
        assert isinstance(handler, _Connection)
        self._open.discard(handler)
        self._closed.set()
        self._closed = anyio.Event()

    async def close_idle(self, timeout: float = _LOOK_AGAIN) -> None:
        """Close the connection that is idle for longest, or wait until one ends.

        Args:
            timeout: Seconds after which this returns all the same.
        """
        closed = self._closed
        idle = [connection for connection in self._open if connection.is_idle]
        if idle:
            min(idle, key=_Connection.idle_until).force_close()
        self._waiting += 1
        try:
            with anyio.move_on_after(timeout):
                await closed.wait()
        finally:
            self._waiting -= 1


class _Connection(web.RequestHandler):
    """aiohttp's connection, but for what it logs and answers of a failure."""

    __slots__ = ("_answered", "_refusals")

    def __init__(self, manager: web.Server, *, refusals: _RefusalLog, **options: Any) -> None:
        super().__init__(manager, **options)
        self._answered = 0
        self._refusals = refusals

    @property
    def is_idle(self) -> bool:
        """Return whether all requests that came whole are answered.

        The head of one may be on its way, or a body that nobody reads.
        """
        return self._request_count == self._answered

    def idle_until(self) -> float:
        """Return the moment at which it is closed if it stays idle."""
        return self._next_keepalive_close_time

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; it is the last of this connection while others wait to be accepted."""
        manager = self._manager
        if isinstance(manager, Connections) and manager.is_full:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        self._answered += 1
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Log that a request failed outside of all handlers, and answer without its words."""
        self.log_exception(status=status, exc_info=exc)
        if request.writer.output_size > 0:
            problem = "part of an answer was sent already"
            raise ConnectionError(problem)
        return _closing(not_http() if status == 400 else broken(status))

    def log_exception(self, *args: Any, status: int = 400, **kw: Any) -> None:
        """Log an exception that no handler has caught; `args` may quote, and are left out."""
        error = kw.get("exc_info")
        if isinstance(error, _REFUSED):
            peer = self.peername
            address = peer[0] if isinstance(peer, tuple) else "a local socket"
            self._refusals.note(type(error).__name__, address, status)
        else:
            _logger.error("a request failed outside of its handler", exc_info=error)


class _RefusalLog:
    """One line for refused requests in each interval, with the number of those left out."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._logged_at: float | None = None
        self._left_out = 0

    def note(self, kind: str, peer: str, status: int) -> None:
        """Log it, or count it if a line was written just now."""
        now, last = self._now(), self._logged_at
        if last is not None and 0 <= now - last < REFUSAL_LOG_INTERVAL:  # a clock may be set back
            self._left_out += 1
            return
        more = f"; {self._left_out} more since the last such line" if self._left_out else ""
        self._logged_at, self._left_out = now, 0
        _logger.warning(
            "refused what is no valid HTTP, from %s: %s, %d%s", peer, kind, status, more
        )

    def close(self) -> None:
        """Log what was left out and has no line to be counted in."""
        if self._left_out:
            _logger.warning("refused %d more requests that are no valid HTTP", self._left_out)
            self._left_out = 0


def _expecting(handle: _Handler) -> _Handler:
    """Return the handler of all requests, which refuses an unknown `Expect` before anything else.

    aiohttp's own refusal would quote the header, and fails on one that is no text.
    """

    def check_then_handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        expected = request.headers.get("expect")
        if expected and expected.lower() != "100-continue":
            return reject()
        return handle(request)  # not awaited here: it would be a frame of every request

    async def reject() -> web.StreamResponse:
        return _closing(bad_expectation())

    return check_then_handle


def _closing(refusal: Refusal) -> web.Response:
    """Return an answer that no handler and no middleware has seen, with the headers of all."""
    response = web.Response(
        status=refusal.status_code,
        body=refusal.encode(),
        headers={**STANDING_HEADERS, "x-request-id": new_request_id()},
        content_type="application/json",
    )
    response.force_close()
    return response
