"""Paths, queries and headers that nobody would send: refused, never a 500."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import anyio
import pytest

from tests.openapi import OPERATIONS
from tests.openapi.bodies import variations
from tests.server.conftest import Serve
from tests.server.support import Caller

IDS = [
    "..",
    "%2e%2e",
    "%2F..%2F..%2Fhealthz",
    "a%00b",
    "a%0d%0aset-cookie:%20x",
    "%ff%fe",
    "%ED%A0%80",
    "x" * 5000,
    "'%20OR%201=1--",
    "%25",
    "runs",
    "🐙",
    "%E2%80%AE",
]


async def raw(url: str, request: bytes) -> bytes:
    """Return what the server sends for these bytes, up to its closing."""
    host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
    received = b""
    with anyio.fail_after(20):
        async with await anyio.connect_tcp(host, int(port)) as stream:
            await stream.send(request)
            try:
                async for piece in stream:
                    received += piece
            except anyio.BrokenResourceError:
                pass  # closed without reading all of it
    return received


def request(method: bytes, target: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    """Return the bytes of one request."""
    length = b"content-length: %d" % len(body)
    lines = [
        method + b" " + target + b" HTTP/1.1",
        b"host: 127.0.0.1",
        b"connection: close",
        length,
    ]
    return b"\r\n".join([*lines, *headers, b"", b""]) + body


@pytest.mark.parametrize("value", IDS)
async def test_strange_ids_are_not_found(caller: Caller, value: str) -> None:
    """Whatever stands where an id should: no 5xx, no other operation, no header of theirs."""
    operations = [each for each in OPERATIONS.values() if "{" in each.path]

    for each in operations:
        names = dict.fromkeys(("assistant_id", "thread_id", "message_id"), value)
        path = each.path.format(**names, run_id=value, step_id=value)
        sent = request(each.method.encode(), f"/v1{path}".encode(), body=b"{}")
        received = await raw(caller.url, sent)
        status = received.split(b" ")[1]
        assert status in {b"400", b"404", b"405"}, (each.operation, received[:300])
        assert b"\nset-cookie" not in received.lower()


@pytest.mark.parametrize(
    "query",
    [
        b"limit=%ff",
        b"after=%ED%A0%80",
        b"after=a%00b",
        b"before=%F0%9F%90%99",
        b"limit=1&limit=2",
        b"&&&===",
        b"after=" + b"x" * 7000,
        b"order=%00",
    ],
)
async def test_strange_queries_are_no_fault_of_the_server(caller: Caller, query: bytes) -> None:
    """Refused or ignored."""
    received = await raw(caller.url, request(b"GET", b"/v1/assistants?" + query))

    assert received.split(b" ")[1] in {b"200", b"400"}, received[:300]


@pytest.mark.parametrize(
    "header",
    [
        b"idempotency-key: \xff\xfe",
        b"idempotency-key: a\tb",
        b"idempotency-key: ",
        b"authorization: Bearer \xff",
        b"prefer: \xff, wait=\xff",
        b"content-type: \xff",
        b"content-type: application/json; charset=latin-1",
        b"content-encoding: gzip",
        b"x-request-id: \xff",
    ],
)
async def test_strange_headers_are_no_fault_of_the_server(caller: Caller, header: bytes) -> None:
    """Refused or ignored."""
    received = await raw(caller.url, request(b"POST", b"/v1/threads", header, body=b"{}"))

    assert received.split(b" ")[1] in {b"200", b"400"}, received[:300]


async def test_body_that_does_not_come_is_a_408(serve: Serve) -> None:
    """A client that drips is not waited for."""
    caller = await serve(body_timeout=0.2)

    async def drip() -> AsyncIterator[bytes]:
        yield b"{"
        await answered.wait()

    answered = anyio.Event()
    async with caller.session.post(f"{caller.url}/threads", data=drip()) as response:
        text = await response.text()
        answered.set()

    assert response.status == 408
    assert "took too long" in text


async def test_headers_that_do_not_end_close_the_connection(serve: Serve) -> None:
    """Slowloris is let go."""
    caller = await serve(keepalive_timeout=0.2)

    received = await raw(caller.url, b"GET /v1/threads HTTP/1.1\r\nx-drip: ")

    assert received == b""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("operation", sorted(op for op, facts in OPERATIONS.items() if facts.body))
async def test_strange_bodies_are_no_fault_of_the_server(caller: Caller, operation: str) -> None:
    """Any one change to a full body: an answer, or a refusal that can be read."""
    described = OPERATIONS[operation]
    chance = random.Random(operation)
    changed = list(variations(described.body or ""))

    for _, _, body in chance.sample(changed, min(len(changed), 60)):
        ids = dict.fromkeys(("assistant_id", "thread_id", "message_id", "run_id"), "x")
        reply = await caller.send(described.method, described.path.format(**ids), json=body)
        assert reply.status in {200, 400, 404}, (body, reply.text)
        assert reply.status == 200 or reply.message
