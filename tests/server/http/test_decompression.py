"""Compressed request bodies: read by those who have the key, in bounded steps, or not at all."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from aiohttp import web

from openai_runs.server import EchoBackend, LocalServer, create_app
from openai_runs.server.api_errors import Refusal
from openai_runs.server.http.decompression import inflate
from tests.server.support import Caller, Reply

KEY = "secret-of-mine"
HELD = {"Authorization": f"Bearer {KEY}"}
TEXT = json.dumps({"metadata": {"a": "b"}}).encode()
BOMB_BYTES = 64 * 1024 * 1024
MAX_BYTES = 1024 * 1024


def deflate(text: bytes) -> bytes:
    """Return what a client sends as `deflate`."""
    return zlib.compress(text)


def bare(text: bytes) -> bytes:
    """Return the same without its header, as some clients send it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(text) + packer.flush()


@asynccontextmanager
async def embedded(**options: Any) -> AsyncIterator[Caller]:
    """Serve the application with a runner of the user's own, which inflates by itself."""
    app = create_app(backend=EchoBackend(), **options)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield Caller(session, f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    finally:
        await runner.cleanup()


@asynccontextmanager
async def local(**options: Any) -> AsyncIterator[Caller]:
    """Serve with our own."""
    async with LocalServer(**options) as server, aiohttp.ClientSession() as session:
        yield Caller(session, server.url)


SERVERS: dict[str, Callable[..., Any]] = {"local": local, "embedded": embedded}


class Inflaters:
    """Counts what is inflated, by whomever."""

    def __init__(self) -> None:
        self.bytes = 0
        self._made = zlib.decompressobj

    def make(self, *args: Any, **options: Any) -> Any:
        """Stand in for `zlib.decompressobj`."""
        return _Inflater(self, self._made(*args, **options))


class _Inflater:
    def __init__(self, count: Inflaters, inner: Any) -> None:
        self._count = count
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def decompress(self, *args: Any) -> bytes:
        piece: bytes = self._inner.decompress(*args)
        self._count.bytes += len(piece)
        return piece


@pytest.fixture
def inflaters(monkeypatch: pytest.MonkeyPatch) -> Inflaters:
    """Count what this process inflates."""
    count = Inflaters()
    monkeypatch.setattr(zlib, "decompressobj", count.make)
    return count


@cache
def bomb(compress: Callable[[bytes], bytes]) -> bytes:
    """Return 64 MiB of text, compressed."""
    return compress(bytes(BOMB_BYTES))


async def chunked(body: bytes) -> AsyncIterator[bytes]:
    """Yield a body whose length is not known."""
    for begin in range(0, len(body), 16384):
        yield body[begin : begin + 16384]


async def send(caller: Caller, path: str, body: Any, encoding: str, **headers: str) -> Reply:
    """Return the answer to a compressed POST (of the health page: a GET)."""
    method = "GET" if path == "/healthz" else "POST"
    root = Caller(caller.session, caller.url.removesuffix("/v1"))
    sent = {"Content-Encoding": encoding, "Content-Type": "application/json", **headers}
    # `compress` unset and the header given: the client sends the body as it is.
    return await root.send(method, path, data=body, headers=sent)


UNREAD: dict[str, tuple[int, str, str, dict[str, str], Callable[[bytes], bytes], bool]] = {
    "no key": (401, "/v1/threads", "gzip", {}, gzip.compress, False),
    "wrong key": (401, "/v1/threads", "deflate", {"api-key": "wrong"}, deflate, False),
    "no key, chunked": (401, "/v1/threads", "gzip", {}, gzip.compress, True),
    "no key, old name": (401, "/v1/threads", "x-gzip", {}, gzip.compress, False),
    "unknown URL": (404, "/v1/nothing", "gzip", HELD, gzip.compress, False),
    "unknown URL, chunked": (404, "/v1/nothing", "deflate", HELD, deflate, True),
    "health page": (200, "/healthz", "gzip", {}, gzip.compress, False),
    "twice": (415, "/v1/threads", "gzip, gzip", HELD, gzip.compress, False),
}


@pytest.mark.parametrize("case", UNREAD)
@pytest.mark.parametrize("server", SERVERS)
async def test_body_is_not_inflated_when_it_is_not_read(
    inflaters: Inflaters, server: str, case: str
) -> None:
    """Nothing at all by our own server; by a runner that inflates, what came with the headers."""
    status, path, encoding, headers, compress, in_chunks = UNREAD[case]
    body = bomb(compress)
    async with SERVERS[server](api_key=KEY) as caller:
        data = chunked(body) if in_chunks else body
        reply = await send(caller, path, data, encoding, **headers)
        await caller.health()
        await caller.health()

    assert reply.status == status
    assert inflaters.bytes <= (0 if server == "local" else 1024 * 1024)


async def test_body_is_not_inflated_when_it_comes_from_a_foreign_page(inflaters: Inflaters) -> None:
    """A server without a key looks at the host first."""
    async with local() as caller:
        host = await send(caller, "/v1/threads", bomb(gzip.compress), "gzip", Host="evil.example")
        page = await send(
            caller, "/v1/threads", bomb(deflate), "deflate", Origin="http://evil.example"
        )

    assert (host.status, page.status) == (403, 403)
    assert inflaters.bytes == 0


@pytest.mark.parametrize("server", SERVERS)
async def test_body_is_not_read_without_end_when_there_is_no_key(server: str) -> None:
    """The answer comes at once, and says that the connection is closed."""
    async with SERVERS[server](api_key=KEY) as caller:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 65536
                yield bytes(65536)

        async with caller.session.post(f"{caller.url}/threads", data=endless()) as response:
            status, closes = response.status, response.headers.get("connection")

    assert (status, closes) == (401, "close")
    assert sent < 64 * 1024 * 1024


GOOD: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "capitals": ("GZip", gzip.compress),
    "old name": ("x-gzip", gzip.compress),
    "deflate": ("deflate", deflate),
    "deflate without header": ("deflate", bare),
    "identity": ("identity", bytes),
    "two members": ("gzip", lambda text: gzip.compress(text[:9]) + gzip.compress(text[9:])),
}


@web.middleware
async def reading_twice(request: web.Request, handler: Any) -> web.StreamResponse:
    """Read the body, as middlewares do."""
    read = await request.json()
    response = await handler(request)
    assert isinstance(response, web.StreamResponse)
    assert read == json.loads(TEXT)
    return response


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.parametrize("middlewares", [[], [reading_twice]], ids=["alone", "with a middleware"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("server", SERVERS)
async def test_compressed_body_is_read(
    server: str, in_chunks: bool, middlewares: list[Any], case: str
) -> None:
    """By handlers and by middlewares, whoever inflates it."""
    encoding, compress = GOOD[case]
    body = compress(TEXT)
    async with SERVERS[server](api_key=KEY, middlewares=middlewares) as caller:
        data = chunked(body) if in_chunks else body
        reply = await send(caller, "/v1/threads", data, encoding, **HELD)

    assert reply.status == 200, reply.text
    assert reply.json["metadata"] == {"a": "b"}


@pytest.mark.parametrize("in_chunks", [False, True], ids=["whole", "chunked"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x-gzip"])
@pytest.mark.parametrize("server", SERVERS)
async def test_bomb_is_a_413_and_inflated_no_further_than_may_be_read(
    inflaters: Inflaters, server: str, encoding: str, in_chunks: bool
) -> None:
    """What it would have become is never there."""
    body = bomb(deflate if encoding == "deflate" else gzip.compress)
    async with SERVERS[server](api_key=KEY, max_request_bytes=MAX_BYTES) as caller:
        data = chunked(body) if in_chunks else body
        reply = await send(caller, "/v1/threads", data, encoding, **HELD)
        await caller.health()
        await caller.health()

    assert reply.status == 413
    assert f"at most {MAX_BYTES} bytes" in reply.message
    assert inflaters.bytes <= MAX_BYTES + (1 if server == "local" else 2 * 1024 * 1024)


BROKEN: dict[str, tuple[str, bytes]] = {
    "cut gzip": ("gzip", gzip.compress(TEXT)[:-9]),
    "cut deflate": ("deflate", deflate(TEXT)[:-5]),
    "no gzip": ("gzip", TEXT),
    "no deflate": ("deflate", b"\x08" + TEXT),
    "wrong sum": ("gzip", gzip.compress(TEXT)[:-8] + bytes(8)),
    "something after": ("gzip", gzip.compress(TEXT) + b"more"),
    "something after deflate": ("deflate", deflate(TEXT) + b"more"),
    "too many members": ("gzip", gzip.compress(b"") * 2000),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_broken_compressed_body_is_a_400(case: str) -> None:
    """The words say what is wrong with it."""
    encoding, body = BROKEN[case]
    async with local(api_key=KEY) as caller:
        reply = await send(caller, "/v1/threads", body, encoding, **HELD)

    assert reply.status == 400
    assert "encoding is broken" in reply.message


@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "compress", "gzip, gzip", "deflate, gzip", "gzip, br", "\xff", "x-x"]
)
async def test_unknown_content_encoding_is_a_415_that_names_it(
    inflaters: Inflaters, encoding: str
) -> None:
    """And what may be sent (RFC 9110, section 15.5.16)."""
    async with local(api_key=KEY) as caller:
        reply = await send(caller, "/v1/threads", gzip.compress(TEXT), encoding, **HELD)

    assert reply.status == 415
    assert ascii(encoding)[1:-1] in reply.message or encoding == "\xff"
    assert reply.headers["accept-encoding"] == "gzip, deflate"
    assert inflaters.bytes == 0


async def test_compressed_body_is_not_inflated_when_its_length_is_a_lie(
    inflaters: Inflaters,
) -> None:
    """What never comes is a 408, and what came is not looked at."""
    body = bomb(gzip.compress)
    head = (
        "POST /v1/threads HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
        f"Content-Length: {len(body) + 9}\r\n\r\n"
    )
    async with local(body_timeout=0.2) as caller:
        port = int(caller.url.removesuffix("/v1").rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        received = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    assert received.startswith(b"HTTP/1.1 408")
    assert inflaters.bytes == 0


@pytest.mark.parametrize("compress", [gzip.compress, deflate, bare], ids=["gzip", "zlib", "bare"])
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
async def test_text_comes_back_whatever_its_size(
    compress: Callable[[bytes], bytes], size: int
) -> None:
    """Steps end where they may, within the text and at its end."""
    text = bytes(index * 7919 >> 3 & 0xFF for index in range(size))
    encoding = "gzip" if compress is gzip.compress else "deflate"

    assert await inflate(compress(text), encoding, size) == text
    if size:
        with pytest.raises(Refusal, match="too large"):
            await inflate(compress(text), encoding, size - 1)


async def test_event_loop_goes_on_while_a_body_is_inflated() -> None:
    """Others have their turn after each step."""
    turns = 0
    body = gzip.compress(bytes(4 * 1024 * 1024))

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await inflate(body, "gzip", 4 * 1024 * 1024)
        group.cancel_scope.cancel()

    assert turns >= 4 * 1024 * 1024 // 65536
