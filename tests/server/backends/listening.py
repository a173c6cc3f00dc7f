"""A model endpoint that writes its bytes by hand: what answers each connection, on a real port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio

__all__ = ["listening"]


@asynccontextmanager
async def listening(serve: Callable[[Any], Awaitable[None]]) -> AsyncIterator[str]:
    """Call `serve` with the stream of each connection; yield the base URL for a backend."""

    async def handle(stream: Any) -> None:
        # The server may hang up on the endpoint, as some tests want.
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await serve(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/v1"
        group.cancel_scope.cancel()
