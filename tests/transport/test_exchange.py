"""One exchange: what comes back, and what a server that misbehaves becomes."""

import asyncio

import pytest

from openai_runs._transport import Transport
from openai_runs.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APITimeoutError,
)
from tests.support import Answer, HostileServer, Received
from tests.transport.wire import LONG, SECRET, SHORT, call, failure, listening


async def test_exchange_gives_status_headers_and_bytes(
    transport: Transport, server: HostileServer
) -> None:
    """Headers by any spelling, the body as it is; what was sent arrives unchanged."""
    url = f"{server.url}/good?include%5B%5D=a%5B%2A%5D&x=%2F"

    reply = await call(transport, url, method="POST", body=b'{"a":1}')

    assert (reply.status, reply.content) == (200, b'{"good":true}')
    assert reply.headers["CONTENT-type"] == "application/json"
    assert server.requests[0].body == b'{"a":1}'
    assert server.requests[0].query == {"include[]": ["a[*]"], "x": ["/"]}
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert "cookie" not in server.requests[0].headers


@pytest.mark.parametrize(("path", "status", "content"), [
    ("error", 503, b'{"error":{"message":"m"}}'),
    ("empty", 204, b""),
])  # fmt: skip
async def test_exchange_does_not_judge(
    transport: Transport, server: HostileServer, path: str, status: int, content: bytes
) -> None:
    """An error status is an answer like any other; an empty body is no bytes."""
    reply = await call(transport, f"{server.url}/{path}")

    assert (reply.status, reply.content) == (status, content)


FAILURES: dict[str, tuple[type[APIError], str]] = {
    "drop": (APIConnectionError, "closed the connection without an answer"),
    "reset": (APIConnectionError, "the connection was lost"),
    "short": (APIConnectionError, "the connection was lost"),
    "short-chunked": (APIConnectionError, "the connection was lost"),
    "bad-chunk": (APIConnectionError, "no proper HTTP: Invalid character"),
    "bad-gzip": (APIConnectionError, "the connection was lost"),
    "no-http": (APIConnectionError, "no proper HTTP: "),
    "bad-status": (APIConnectionError, "no proper HTTP: "),
    "bad-header": (APIConnectionError, "no proper HTTP: "),
    "long-header": (APIConnectionError, "no proper HTTP: "),
    "huge": (APIResponseValidationError, "larger than 33554432 bytes"),
    "hang": (APITimeoutError, "no answer within 0.05 s"),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", FAILURES)
async def test_failure_is_ours_and_gives_the_connection_back(
    transport: Transport,
    server: HostileServer,
    path: str,
    method: str,
) -> None:
    """What a server does wrong is one of our errors; the pool's only connection stays usable."""
    cls, text = FAILURES[path]
    timeout = SHORT if path == "hang" else LONG

    error = await failure(transport, f"{server.url}/{path}?key=1", method=method, timeout=timeout)

    assert type(error) is cls
    assert text in error.message
    assert f"{method} {server.url}/{path}" in error.message
    assert "key=1" not in error.message
    assert len(str(error).splitlines()) == 1
    if isinstance(error, APIConnectionError):
        assert (error.sent, error.retryable) == (True, True)
    assert (await call(transport, f"{server.url}/good")).status == 200


@pytest.mark.parametrize("path", ["drop", "reset", "hang"])
async def test_create_is_sent_once(server: HostileServer, path: str) -> None:
    """A POST on a connection that breaks is never repeated here, not even on a reused one."""
    transport = Transport(max_connections=1)
    await call(transport, f"{server.url}/good")

    await failure(transport, f"{server.url}/{path}", method="POST", body=b"{}", timeout=SHORT * 4)

    assert len(server.seen("POST")) == 1
    await transport.aclose()


async def test_reset_before_the_request_is_read(transport: Transport) -> None:
    """A connection that is made and reset at once: nobody knows what arrived."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with listening(reset) as port:
        error = await failure(transport, f"http://127.0.0.1:{port}/v1", method="POST", body=b"{}")

    assert isinstance(error, APIConnectionError)
    assert error.sent


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirect_is_an_answer(transport: Transport, status: int, method: str) -> None:
    """Nothing is sent to where it points, elsewhere or on the same server."""
    async with HostileServer(lambda _: Answer(json={})) as elsewhere:

        def redirect(request: Received) -> Answer:
            return Answer(status, json={}, headers={"Location": f"{elsewhere.url}/stolen"})

        async with HostileServer(redirect) as server:
            reply = await call(transport, f"{server.url}/runs", method=method, body=b"{}")

        assert (reply.status, reply.headers["Location"]) == (status, f"{elsewhere.url}/stolen")
        assert len(server.requests) == 1
        assert elsewhere.requests == []


async def test_cookies_are_not_kept(transport: Transport) -> None:
    """A server cannot leave a mark on the next call."""
    async with HostileServer(lambda _: Answer(json={}, headers={"Set-Cookie": "a=b"})) as server:
        await call(transport, server.url)
        await call(transport, server.url)

    assert ["cookie" in request.headers for request in server.requests] == [False, False]
