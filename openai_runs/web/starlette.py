"""For FastAPI and Starlette: errors as answers, a client for each application, event streams.

Importing this needs Starlette, which is no dependency of this package; FastAPI is used where it is
installed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from openai_runs import OpenAIRunsError, relay
from openai_runs.web.errors import ErrorResponse, InvalidTextError, error_response, rejection
from openai_runs.web.opening import MakeClient, MakeOther, opened

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

__all__ = ["EXCEPTION_HANDLERS", "lifespan", "respond"]

_ECHOED: Final = frozenset({"input"})
"""What FastAPI says of an error beside its kind, place and text: what was sent, of any length."""


async def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, OpenAIRunsError)
    return _as_response(error_response(error))


async def _reject(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code < HTTPStatus.BAD_REQUEST:
        return Response(status_code=error.status_code, headers=error.headers)
    said = error.detail if isinstance(error.detail, str) else "The request was rejected."
    return _as_response(
        rejection(error.status_code, said, headers=error.headers, detail=error.detail)
    )


async def _reject_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = [
        {name: value for name, value in one.items() if name not in _ECHOED}
        for one in error.errors()
    ]
    if any(one["type"] == "string_unicode" for one in details):
        return await _answer(request, InvalidTextError("a text has half of a surrogate pair"))
    details = jsonable_encoder(details)
    names = [_name_of(one["loc"]) for one in details]
    said = "; ".join(f"{name}: {one['msg']}" for name, one in zip(names, details, strict=True))
    if any(one["loc"][0] == "cookie" for one in details):
        said += ". Reload the page, or sign in again."
    return _as_response(
        rejection(422, said, code="invalid_request", param=names[0], detail=details)
    )


def _name_of(place: Sequence[str | int]) -> str:
    """Return the name of the field that a place is in, without its index: of no JSON, the body."""
    return next(part for part in reversed(place) if isinstance(part, str))


def _as_response(answer: ErrorResponse) -> Response:
    return Response(answer.body, status_code=answer.status, headers=dict(answer.headers))


EXCEPTION_HANDLERS: Final[dict[Any, Any]] = {OpenAIRunsError: _answer, HTTPException: _reject}
"""For `FastAPI(exception_handlers=EXCEPTION_HANDLERS)`, or Starlette's: each error of this
package is answered as `error_response` says. An `HTTPException`, and what FastAPI's validation
rejects, is answered in the same shape, with FastAPI's `detail` beside it, but for
the `input` there."""

try:
    from fastapi.encoders import jsonable_encoder
    from fastapi.exceptions import RequestValidationError
except ImportError:
    pass  # Starlette alone validates nothing
else:
    EXCEPTION_HANDLERS[RequestValidationError] = _reject_invalid


def lifespan(
    client: MakeClient, **others: MakeOther
) -> Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return the `lifespan=` of an application that has a client as long as it is served.

    A handler finds the client as `request.state.client`, and the others by their names. Each
    start of the application opens new ones, in the event loop that serves it.

    Args:
        client: Called at the start, without arguments: `AsyncClient`, `AsyncClient.local`, or a
            `partial` of either.
        **others: Called with the open client, for what is made of it: a `Chat`, for example.
    """

    @asynccontextmanager
    async def span(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with opened(client, others) as objects:
            yield objects

    return span


def respond(frames: AsyncGenerator[bytes] | relay.Frames | None) -> Response:
    """Return the frames as a response, or 204 where there are none.

    Args:
        frames: What `Chat.send`, `Chat.follow` or `await relay.sse(...)` has returned; closed
            when the browser has left.
    """
    return Response(status_code=204) if frames is None else _EventResponse(frames)


class _EventResponse(StreamingResponse):
    """Frames that are closed however the response ends."""

    def __init__(self, frames: AsyncGenerator[bytes] | relay.Frames) -> None:
        super().__init__(frames, headers=dict(relay.HEADERS))
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames as they come."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._frames.aclose()
