"""HTTP connections: what becomes of a request that is no HTTP, before any handler sees it.

aiohttp writes the line that it cannot parse into its log and into its answer: with a key that
ends in a line break, or a prompt behind a `Content-Length` that is too short. Here the log
names the kind of fault and the peer, at most once a minute, and the answer quotes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final, TypeAlias

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from openai_runs.config import REFUSAL_LOG_INTERVAL
from openai_runs.server.api_errors import Refusal, bad_expectation, broken, not_http
from openai_runs.server.http.middlewares import STANDING_HEADERS, new_request_id
from openai_runs.server.log_filter import filtered_logger

__all__ = ["ApiRunner"]

_Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

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
        return _Server(
            _expecting(made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            refusals=self._refusals,
            **options,
        )


class _Server(web.Server):
    """Makes our connections in place of aiohttp's."""

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """aiohttp's connection, but for what it logs and answers of a failure."""

    __slots__ = ("_refusals",)

    def __init__(self, manager: web.Server, *, refusals: _RefusalLog, **options: Any) -> None:
        super().__init__(manager, **options)
        self._refusals = refusals

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

    async def check_then_handle(request: web.BaseRequest) -> web.StreamResponse:
        expected = request.headers.get("expect")
        if expected and expected.lower() != "100-continue":
            return _closing(bad_expectation())
        return await handle(request)

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
