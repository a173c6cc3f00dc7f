"""What all answers share: their headers, and one place where an exception becomes a status."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from aiohttp import web

from openai_runs._log_ids import LogIds
from openai_runs._tracing import ServerTracing
from openai_runs.server.api_errors import Refusal, Replay
from openai_runs.server.http.access import Check
from openai_runs.server.http.foreign_requests import unknown_path
from openai_runs.server.http.outgoing import Outgoing, Reply
from openai_runs.server.http.request_parsing import is_left_unread

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

__all__ = [
    "STANDING_HEADERS",
    "answering",
    "beginning",
    "new_request_id",
    "tracing_requests",
]

FEATURES: Final = "idempotency, prefer-wait, resume"
"""Which extensions this server has (docs/pages/explain/protocol.md)."""
API_VERSION: Final = "2020-10-01"
"""`openai-version`, as OpenAI's own servers send it."""
STANDING_HEADERS: Final = {"openai-version": API_VERSION, "openai-runs-features": FEATURES}
"""Headers that are the same on every answer."""

_ID: Final = web.RequestKey("id", str)
_BEGAN: Final = web.RequestKey("began", float)

_logger = logging.getLogger("openai_runs.server")


def new_request_id() -> str:
    """Return the id of one request, for its answer and its lines in the log."""
    return f"req_{random.getrandbits(128):032x}"


def answering(outgoing: Outgoing, checks: Sequence[Check] = ()) -> Middleware:
    """Return the outermost middleware: it checks who asks, and turns exceptions into answers."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[_BEGAN] = time.perf_counter()
        request[_ID] = request_id = new_request_id()
        try:
            for check in checks:
                check(request)
            response = await handler(request)
        except Exception as error:
            response = Reply(outgoing, *_answer_for(error, request, request_id))
        if is_left_unread(request):
            response.force_close()
            request.protocol.close()  # what still comes is neither parsed nor inflated
            outgoing.mark_unread(request.transport)
        return response

    return answer


def tracing_requests(tracing: ServerTracing, prefix: str) -> Middleware:
    """Return the middleware outside of all others: each request of the API gets a span.

    Raises:
        TypeError: `tracing` is no tracing.
    """
    if not isinstance(tracing, ServerTracing):
        message = f"tracing must be an openai_runs.otel.Tracing, got {tracing!r}"
        raise TypeError(message)

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = "" if resource is None else resource.canonical
        if not route.startswith(prefix):
            return await handler(request)
        with tracing.served(request.method, route, request.headers) as span:
            response = await handler(request)
            span.set_http_status(response.status)
        return response

    return trace


def beginning(
    outgoing: Outgoing,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return what is called just before the first byte of an answer is sent."""

    async def begin(request: web.Request, response: web.StreamResponse) -> None:
        request_id = request.get(_ID)
        ids: LogIds = {} if request_id is None else {"request_id": request_id}
        outgoing.begin(request.transport, request_id or request.path, ids)
        if request_id is None:  # an application around ours answers by itself
            return
        response.headers["x-request-id"] = request_id
        response.headers.update(STANDING_HEADERS)
        elapsed = (time.perf_counter() - request[_BEGAN]) * 1000
        response.headers["openai-processing-ms"] = str(int(elapsed))

    return begin


def _answer_for(
    error: Exception, request: web.Request, request_id: str
) -> tuple[int, bytes, dict[str, str]]:
    """Return the status, the body and the headers an exception stands for."""
    if isinstance(error, Replay):
        return error.status_code, error.body, {"idempotent-replayed": "true"}
    if isinstance(error, Refusal):
        return error.status_code, error.encode(), error.headers
    if isinstance(error, web.HTTPException):
        return _answer_for(_translated(error, request), request, request_id)
    if isinstance(error, ConnectionError):  # the client has disconnected; nobody reads the answer
        ids: LogIds = {"request_id": request_id}
        _logger.info("%s: the client went away", request_id, extra=ids)
    else:
        ids = {"request_id": request_id}
        _logger.error("%s failed", request_id, exc_info=error, extra=ids)
    message = f"The server had an error while processing your request. Its id is {request_id}."
    refusal = Refusal(message, status_code=500, kind="server_error")
    return refusal.status_code, refusal.encode(), refusal.headers


def _translated(error: web.HTTPException, request: web.Request) -> Refusal:
    """Return aiohttp's own refusal in OpenAI's words."""
    if error.status == 404:
        return unknown_path(request.method, request.path)
    if error.status == 405:
        message = f"Invalid method for URL ({request.method} {request.path})"
        return Refusal(message, status_code=405, headers=_allow(error))
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return Refusal(error.reason, status_code=error.status, kind=kind)


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"allow": error.headers["allow"]} if "allow" in error.headers else {}
