"""A stream without end is closed at `max_stream_bytes`, with a clear error and what had come."""

from __future__ import annotations

import itertools
import logging
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from openai_runs import AsyncClient, RetryPolicy, StreamTooLarge
from openai_runs._client.core.size_limit import SizeLimit
from openai_runs._client.streams.run_stream import RunStream
from openai_runs._protocol.sse import Frame
from tests.client.broadcaster import frame
from tests.client.endless import BEGIN, CHUNKED, STREAM_HEAD, EndlessServer, Pieces

LIMIT = 200_000
"""Bytes; far more than any of these streams needs to begin."""


def delta(text: str, index: int = 0, **more: Any) -> bytes:
    """Return a piece of a message."""
    part = {"index": index, "type": "text", "text": {"value": text, **more}}
    data = {"id": "msg_1", "object": "thread.message.delta", "delta": {"content": [part]}}
    return frame("thread.message.delta", data)


def annotated(number: int) -> bytes:
    """Return an annotation of its own."""
    note = {"index": number, "type": "file_path", "text": "x", "file_path": {"file_id": "file_1"}}
    return delta("", annotations=[note])


def wide(number: int) -> bytes:
    """Return a small message that takes much memory."""
    return frame("thread.message.created", {"id": f"msg_{number}", "content": [{}] * 1000})


KINDS: dict[str, Callable[[int], bytes]] = {
    "text": lambda number: delta("x" * 1000),
    "tiny-text": lambda number: delta("x"),
    "content-parts": lambda number: delta("x", number),
    "annotations": annotated,
    "messages": lambda number: frame("thread.message.created", {"id": f"msg_{number}"}),
    "steps": lambda number: frame("thread.run.step.created", {"id": f"step_{number}"}),
    "wide-messages": wide,
    "runs": lambda number: BEGIN,
    "unknown-events": lambda number: b"event: odd\ndata: {}\n\n",
    "unreadable-events": lambda number: b"event: thread.message.created\ndata: {\n\n",
    "comments": lambda number: b": keep-alive\n\n",
    "blank-lines": lambda number: b"\n\n\n\n",
    "ids": lambda number: b"id: 1-%d\n\n" % number,
    "one-event": lambda number: b"x" * 1000 if number else b"data: x",
    "one-comment": lambda number: b"x" * 1000 if number else b": x",
    "one-field-name": lambda number: b"x" * 1000,
    "one-id": lambda number: b"x" * 1000 if number else b"id: x",
    "one-event-name": lambda number: b"x" * 1000 if number else b"event: x",
    "one-event-of-many-lines": lambda number: b"data: x\n",
}


def endless(make: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield a stream that begins well and never ends."""
    yield STREAM_HEAD + BEGIN + delta("begin")
    for number in itertools.count():
        yield make(number)


def compressed() -> Iterator[bytes]:
    """Yield a compressed stream of comments, a thousandth of its size."""
    squeeze = zlib.compressobj(wbits=31)
    for text in itertools.chain(
        [BEGIN + delta("begin")], itertools.repeat(b":" + b" " * 1_000_000)
    ):
        piece = squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        head = CHUNKED if text.startswith(b"event") else b""
        yield head + b"%x\r\n%b\r\n" % (len(piece), piece)


async def read_all(stream: RunStream) -> None:
    """Read a stream to its end, and leave it."""
    async with stream:
        async for _ in stream:
            pass


async def read_to_limit(
    pieces: Pieces, *, on_cancel: Any = "leave", max_stream_bytes: int = LIMIT
) -> tuple[StreamTooLarge, RunStream, EndlessServer]:
    """Return the error, the stream and the server of a stream that exceeds its limit."""
    retry = RetryPolicy(initial=0, maximum=0)
    with anyio.fail_after(30):
        async with (
            EndlessServer(pieces) as server,
            AsyncClient(server.url, "k", retry=retry, max_stream_bytes=max_stream_bytes) as client,
        ):
            stream = client.runs.stream("thread_1", assistant_id="asst_1", on_cancel=on_cancel)
            with pytest.raises(StreamTooLarge) as caught:
                await read_all(stream)
            if "GET stream" not in server.asked:
                await server.closed.wait()
    return caught.value, stream, server


@pytest.mark.parametrize("kind", KINDS)
async def test_stream_is_closed_at_its_limit_whatever_it_repeats(kind: str) -> None:
    """What had come is in the error and in the snapshot; the connection is closed at once."""
    error, stream, server = await read_to_limit(partial(endless, KINDS[kind]))

    assert "max_stream_bytes=200000" in str(error)
    assert error.max_stream_bytes == LIMIT
    assert error.text_so_far.startswith("begin")
    assert error.text_so_far == stream.snapshot.text
    assert (error.thread_id, error.run_id) == ("thread_1", "run_1")
    assert len(error.text_so_far) <= LIMIT
    assert server.asked == ["POST runs"]


async def test_stream_that_is_compressed_is_counted_as_it_is_read() -> None:
    """A megabyte for each thousand bytes on the wire."""
    error, _, server = await read_to_limit(compressed)

    assert error.text_so_far == "begin"
    assert server.asked == ["POST runs"]


async def test_limit_counts_all_connections_of_a_stream() -> None:
    """A server that closes after each event, each with progress, is no way around it."""
    connections = itertools.count()

    def one_event() -> Iterator[bytes]:
        number = next(connections)
        yield STREAM_HEAD[:-2] + b"openai-runs-features: resume\r\n\r\n"
        yield (b"" if number else BEGIN) + b"id: 1-%d\n" % (number + 2) + delta("x" * 1000)

    _, stream, server = await read_to_limit(one_event, max_stream_bytes=20_000)

    assert 10 < server.asked.count("GET stream") < 30
    assert 10_000 < len(stream.snapshot.text) < 20_000


@pytest.mark.parametrize(("on_cancel", "cancels"), [("leave", 0), ("cancel", 1)])
async def test_run_is_cancelled_at_the_limit_only_where_the_caller_says_so(
    on_cancel: str, cancels: int
) -> None:
    """The limit is the client's own, and says nothing about the run."""
    _, _, server = await read_to_limit(partial(endless, KINDS["text"]), on_cancel=on_cancel)

    assert server.asked.count("POST cancel") == cancels


async def test_stream_ends_after_its_limit_and_the_client_goes_on() -> None:
    """No event comes after the error, and the same client answers."""
    with anyio.fail_after(30):
        async with (
            EndlessServer(partial(endless, KINDS["text"])) as server,
            AsyncClient(server.url, "k", max_stream_bytes=LIMIT) as client,
        ):
            stream = client.runs.stream("thread_1", assistant_id="asst_1")
            with pytest.raises(StreamTooLarge):
                await read_all(stream)
            assert [event async for event in stream] == []
            run = await client.runs.retrieve("run_1", thread_id="thread_1")

    assert run.status == "in_progress"


async def test_unreadable_events_without_end_are_logged_a_few_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A server cannot fill the log either."""
    with caplog.at_level(logging.WARNING, "openai_runs"):
        await read_to_limit(partial(endless, KINDS["unreadable-events"]))

    assert len(caplog.records) == 11


def _follow(client: AsyncClient, **options: Any) -> RunStream:
    return client.runs.follow("run_1", thread_id="thread_1", **options)


def _submit(client: AsyncClient, **options: Any) -> RunStream:
    outputs = [{"tool_call_id": "call_1", "output": "4"}]
    return client.runs.submit_tool_outputs_stream(
        "run_1", thread_id="thread_1", tool_outputs=outputs, **options
    )


def _create_and_run(client: AsyncClient, **options: Any) -> RunStream:
    return client.threads.create_and_run_stream(assistant_id="asst_1", **options)


def _run_with_tools(client: AsyncClient, **options: Any) -> RunStream:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return client.runs.stream("thread_1", assistant_id="asst_1", tools=[add], **options)


WAYS = {
    "follow": _follow,
    "submit": _submit,
    "create-and-run": _create_and_run,
    "with-tools": _run_with_tools,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["copy", "call"])
async def test_limit_holds_for_every_stream_wherever_it_is_set(way: str, place: str) -> None:
    """Of a copy of the client, or of one call."""
    pieces = partial(endless, KINDS["text"])
    with anyio.fail_after(30):
        async with EndlessServer(pieces) as server, AsyncClient(server.url, "k") as client:
            limited = client.with_options(max_stream_bytes=LIMIT) if place == "copy" else client
            options = {"max_stream_bytes": LIMIT} if place == "call" else {}
            stream = WAYS[way](limited, **options)
            with pytest.raises(StreamTooLarge, match="max_stream_bytes=200000"):
                await read_all(stream)


def _of_client(client: AsyncClient, value: Any) -> object:
    return AsyncClient("http://127.0.0.1:1/v1", "k", max_stream_bytes=value)


def _of_copy(client: AsyncClient, value: Any) -> object:
    return client.with_options(max_stream_bytes=value)


def _of_call(client: AsyncClient, value: Any) -> object:
    return client.runs.stream("thread_1", assistant_id="asst_1", max_stream_bytes=value)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError)])
@pytest.mark.parametrize("make", [_of_client, _of_copy, _of_call], ids=["client", "copy", "call"])
async def test_limit_is_checked_where_it_is_given(
    value: Any, error: type[Exception], make: Callable[[AsyncClient, Any], object]
) -> None:
    """A limit under which nothing could be read is a mistake."""
    async with AsyncClient("http://127.0.0.1:1/v1", "k") as client:
        with pytest.raises(error, match="max_stream_bytes"):
            make(client, value)


def test_events_before_the_limit_are_kept() -> None:
    """Of the piece that exceeds it, those that are within."""
    size = SizeLimit(1000)
    frames = [Frame("", b"x" * 450, "")] * 4
    size.add(b"x" * 1800, 4)

    assert size.is_exceeded
    assert len(size.within(frames)) == 2


@pytest.mark.parametrize("first", [b"", BEGIN], ids=["before-the-run", "in-the-run"])
async def test_stream_that_drips_for_ever_ends_at_its_timeout(first: bytes) -> None:
    """Bytes are no progress: one comment after the other, and nothing else."""

    def drip() -> Iterator[bytes]:
        return itertools.chain([STREAM_HEAD + first], itertools.repeat(b":\n"))

    with anyio.fail_after(30):
        async with EndlessServer(drip) as server, AsyncClient(server.url, "k") as client:
            stream = client.runs.stream("thread_1", assistant_id="asst_1", timeout=0.3)
            with pytest.raises(TimeoutError):
                await read_all(stream)
            await server.closed.wait()
