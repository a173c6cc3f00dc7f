"""For aiohttp: errors as answers, a client for each application, event streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import anyio
from aiohttp import web

from openai_runs import AsyncClient, OpenAIRunsError, relay
from openai_runs.web.chat import Chat
from openai_runs.web.errors import error_response, rejection
from openai_runs.web.opening import MakeClient, MakeOther, opened

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = ["CHAT", "CLIENT", "cleanup_ctx", "error_middleware", "respond"]

_POLL: Final = 0.25
"""Seconds between two checks whether the browser is still there."""
_OF_BODY: Final = frozenset({"Content-Type", "Content-Length"})
CLIENT: Final[web.AppKey[AsyncClient]] = web.AppKey("client", AsyncClient)
"""Where `cleanup_ctx` puts the client: `request.app[CLIENT]`."""
CHAT: Final[web.AppKey[Chat]] = web.AppKey("chat", Chat)
"""Where `cleanup_ctx` puts the chat: `request.app[CHAT]`."""


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer each error of this package as `error_response` says.

    An `HTTPException` with a plain text is answered in the same shape.

    For `web.Application(middlewares=[error_middleware])`.

    Args:
        request: The browser's.
        handler: What answers it.

    Cancellation: cancels the handler.
    """
    try:
        return await handler(request)
    except OpenAIRunsError as error:
        status, headers, body = error_response(error)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST or error.content_type != "text/plain":
            raise
        kept = {name: text for name, text in error.headers.items() if name not in _OF_BODY}
        status, headers, body = rejection(error.status, error.text or error.reason, headers=kept)
    return web.Response(body=body, status=status, headers=headers)


def cleanup_ctx(
    client: MakeClient, *, chat: MakeOther | None = None
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what keeps a client open as long as the application is served.

    For `application.cleanup_ctx.append(...)`. A handler finds the client as
    `request.app[CLIENT]`, and the chat as `request.app[CHAT]`.

    Args:
        client: Called at the start, without arguments: `AsyncClient`, `AsyncClient.local`, or a
            `partial` of either.
        chat: Called with the open client, for the `Chat` that is made of it.
    """
    makers: dict[str, MakeOther] = {} if chat is None else {"chat": chat}

    async def span(app: web.Application) -> AsyncIterator[None]:
        async with opened(client, makers) as objects:
            app[CLIENT] = objects["client"]
            if chat is not None:
                app[CHAT] = objects["chat"]
            yield

    return span


async def respond(
    request: web.Request, frames: AsyncGenerator[bytes] | relay.Frames | None
) -> web.StreamResponse:
    """Send the frames as they come, and return the response; 204 where there are none.

    Args:
        request: The browser's.
        frames: What `Chat.send`, `Chat.follow` or `await relay.sse(...)` has returned; closed
            when the browser has left.

    Cancellation: closes the frames.
    """
    if frames is None:
        return web.Response(status=204)
    response = web.StreamResponse(headers=relay.HEADERS)
    source: Any = frames
    async with aclosing(source), anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_when_gone, request, tasks.cancel_scope)
        await _write(request, response, frames)
        tasks.cancel_scope.cancel()
    return response


async def _cancel_when_gone(request: web.Request, scope: anyio.CancelScope) -> None:
    """Cancel once the browser has left: a write notices that only when there is one."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - aiohttp 3 has no event for it
        await anyio.sleep(_POLL)
    scope.cancel()


async def _write(
    request: web.Request,
    response: web.StreamResponse,
    frames: AsyncGenerator[bytes] | relay.Frames,
) -> None:
    try:
        await response.prepare(request)
        async for frame in frames:
            await response.write(frame)
    except ConnectionError:
        return  # the browser has left
