"""An answer that never ends, in whatever part of it, is an error of ours, in bounded time."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator

import anyio
import pytest

from openai_runs import APIError, AsyncClient
from tests.client.endless import EndlessServer

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def then(head: bytes, piece: bytes) -> Iterator[bytes]:
    """Yield a beginning, and one piece for ever."""
    return itertools.chain([head], itertools.repeat(piece))


def chunk(data: bytes) -> bytes:
    """Return a chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def compressed() -> Iterator[bytes]:
    """Yield a body that is a thousand times as large as its bytes."""
    squeeze = zlib.compressobj(wbits=31)
    head = OK + JSON + b"Content-Encoding: gzip\r\n" + CHUNKED
    return itertools.chain(
        [head],
        (
            chunk(squeeze.compress(b" " * 1_000_000) + squeeze.flush(zlib.Z_SYNC_FLUSH))
            for _ in itertools.count()
        ),
    )


LARGE = b" " * 65_000
ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "body": lambda: then(OK + JSON + CHUNKED, chunk(LARGE)),
    "body-without-a-length": lambda: then(OK + JSON + b"\r\n", LARGE),
    "compressed-body": compressed,
    "error-body": lambda: then(b"HTTP/1.1 400 No\r\n" + JSON + CHUNKED, chunk(LARGE)),
    "error-page": lambda: then(b"HTTP/1.1 502 No\r\nContent-Type: text/html\r\n\r\n", LARGE),
    "headers": lambda: then(OK, b"X-More: and more\r\n"),
    "header": lambda: then(OK + b"X-Long: ", b"x" * 1000),
    "header-name": lambda: then(OK, b"x" * 1000),
    "status-line": lambda: then(b"HTTP/1.1 200 ", b"x" * 1000),
    "status": lambda: then(b"HTTP/1.1 ", b"2" * 1000),
    "chunk-size": lambda: then(OK + JSON + CHUNKED, b"0" * 1000),
    "trailers": lambda: then(OK + JSON + CHUNKED + b"0\r\n", b"X-More: and more\r\n"),
    "blank-lines": lambda: then(b"", b"\r\n" * 100),
    "answers-that-say-to-go-on": lambda: then(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early-hints": lambda: then(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "drip": lambda: then(OK + JSON + b"\r\n", b" "),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_answer_that_never_ends_is_an_error(kind: str) -> None:
    """By its size or by its time, and the connection is closed."""
    with anyio.fail_after(30):
        async with (
            EndlessServer(ENDLESS[kind], always=True) as server,
            AsyncClient(server.url, "k", max_retries=0, request_timeout=1) as client,
        ):
            with pytest.raises(APIError):
                await client.threads.retrieve("thread_1")
            await server.closed.wait()

    assert server.asked == ["GET thread_1"]


@pytest.mark.parametrize("kind", ["body", "compressed-body", "error-body", "headers"])
async def test_stream_whose_answer_is_none_and_never_ends_is_an_error(kind: str) -> None:
    """The same holds for the head of a stream, and for what comes in its place."""
    with anyio.fail_after(30):
        async with (
            EndlessServer(ENDLESS[kind], always=True) as server,
            AsyncClient(server.url, "k", max_retries=0, request_timeout=1) as client,
        ):
            stream = client.threads.create_and_run_stream(assistant_id="asst_1")
            with pytest.raises(APIError):
                await stream.__aenter__()
            await server.closed.wait()
