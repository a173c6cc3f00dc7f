"""What the transport's tests share: a call with a secret in it, and servers to make it to."""

import asyncio
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from openai_runs._transport import Reply, Transport
from openai_runs.errors import APIError
from tests.support import Answer, Drop, Hang, Raw, Received, Reset

__all__ = ["LONG", "SECRET", "SHORT", "call", "failure", "free_port", "listening", "misbehave"]

SECRET = "sk-secret-1234567890"
HEADERS = {"Authorization": f"Bearer {SECRET}"}
LONG = 30.0
"""Seconds; more than any of these tests needs."""
SHORT = 0.05
"""Seconds; for exchanges that are to end by their deadline."""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections with `handler` on a free port; yield the port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def call(transport: Transport, url: str, **changes: Any) -> Reply:
    """Send one GET with the secret in its headers."""
    given: dict[str, Any] = {"headers": HEADERS, "timeout": LONG, **changes}
    reply: Reply = await transport.exchange(given.pop("method", "GET"), url, **given)
    return reply


async def failure(transport: Transport, url: str, **changes: Any) -> APIError:
    """Return the error of a call that fails, having looked for the key in all it holds."""
    with pytest.raises(APIError) as caught:
        await call(transport, url, **changes)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(vars(caught.value))
    return caught.value


def misbehave(request: Received) -> Answer | Raw | Drop | Reset | Hang:
    """Do what the path says."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    actions: dict[str, Answer | Raw | Drop | Reset | Hang] = {
        "/v1/good": Answer(json={"good": True}),
        "/v1/error": Answer(503, json={"error": {"message": "m"}}),
        "/v1/empty": Answer(204, body=b""),
        "/v1/drop": Drop(),
        "/v1/reset": Reset(),
        "/v1/hang": Hang(),
        "/v1/short": Raw(head + b"Content-Length: 100\r\n\r\n{}"),
        "/v1/short-chunked": Raw(chunked + b"5\r\nhel"),
        "/v1/bad-chunk": Raw(chunked + b"zz\r\nhello"),
        "/v1/bad-gzip": Raw(head + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"),
        "/v1/no-http": Raw(b"220 mail.example.invalid ESMTP\r\n\r\n"),
        "/v1/bad-status": Raw(b"HTTP/1.1 abc OK\r\n\r\n"),
        "/v1/bad-header": Raw(b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n"),
        "/v1/long-header": Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
        "/v1/huge": Raw(head + b"Content-Length: 10737418240\r\n\r\n{"),
    }
    return actions[request.path]


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
