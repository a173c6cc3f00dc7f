"""Size, time and cancellation: an exchange ends when it has to."""

import asyncio
import gc
import gzip
import zlib

import pytest

from openai_runs._transport import Transport
from openai_runs.errors import (
    APIResponseValidationError,
    APITimeoutError,
)
from tests.support import Answer, Hang, HostileServer, Received
from tests.transport.wire import LONG, SHORT, call, failure, listening


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer in chunks of one byte: 100 of them under /some, without an end else."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100) if b"/some" in head else iter(int, 1):
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def test_slow_answer_is_read_to_its_end(transport: Transport) -> None:
    """Many small pieces are one body."""
    async with listening(drip) as port:
        reply = await call(transport, f"http://127.0.0.1:{port}/some")

    assert reply.content == b"x" * 100


async def test_answer_that_never_ends_ends_by_the_deadline(transport: Transport) -> None:
    """Bytes that keep coming do not keep the deadline away."""
    async with listening(drip) as port:
        error = await failure(transport, f"http://127.0.0.1:{port}/all", timeout=SHORT * 2)

    assert isinstance(error, APITimeoutError)
    assert isinstance(error, TimeoutError)


async def test_answer_that_never_ends_ends_by_its_size(transport: Transport) -> None:
    """Without a declared length, what is read is counted."""
    async with listening(drip) as port:
        error = await failure(transport, f"http://127.0.0.1:{port}/all", max_bytes=50)

    assert isinstance(error, APIResponseValidationError)
    assert error.status_code == 200


@pytest.mark.parametrize(("size", "fits"), [(100, True), (101, False)])
@pytest.mark.parametrize("compressed", [False, True])
async def test_size_is_counted_decompressed(
    transport: Transport, size: int, fits: bool, compressed: bool
) -> None:
    """Exactly the limit is read, one byte more is refused, however it was packed."""
    body = gzip.compress(b"x" * size) if compressed else b"x" * size
    headers = {"Content-Encoding": "gzip"} if compressed else {}
    async with HostileServer(lambda _: Answer(body=body, headers=headers)) as server:
        if fits:
            assert (await call(transport, server.url, max_bytes=100)).content == b"x" * size
        else:
            error = await failure(transport, server.url, max_bytes=100)
            assert isinstance(error, APIResponseValidationError)


def bomb(form: int) -> bytes:
    """Return 200 MB of nothing, compressed a piece at a time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, form)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()


def peak() -> int:
    """Return the most memory this process has held since `forget_peak`, in kilobytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Let the measure of the most memory start anew (Linux, proc(5))."""
    gc.collect()
    with open("/proc/self/clear_refs", "w") as measure:
        measure.write("5")


@pytest.mark.parametrize(("encoding", "form"), [("gzip", 31), ("deflate", 15)])
async def test_compressed_bomb_is_refused_in_little_memory(
    transport: Transport, encoding: str, form: int
) -> None:
    """200 MB packed into 200 KB cost less than 50 MB."""
    body = bomb(form)
    async with HostileServer(
        lambda _: Answer(body=body, headers={"Content-Encoding": encoding})
    ) as server:
        await failure(transport, server.url, max_bytes=1000)  # load what is loaded once
        forget_peak()
        before = peak()

        error = await failure(transport, server.url)

        assert isinstance(error, APIResponseValidationError)
        assert peak() - before < 50_000


async def test_waiting_for_a_free_connection_has_a_deadline(
    transport: Transport, server: HostileServer
) -> None:
    """A pool whose connections are all taken does not hold a call for ever."""
    arrived = asyncio.Event()

    def hang(_: Received) -> Hang:
        arrived.set()
        return Hang()

    async with HostileServer(hang) as busy:
        first = asyncio.create_task(call(transport, busy.url))
        await arrived.wait()

        error = await failure(transport, f"{server.url}/good", timeout=SHORT)

        assert isinstance(error, APITimeoutError)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert (await call(transport, f"{server.url}/good")).status == 200


async def test_cancelled_read_closes_the_connection(transport: Transport) -> None:
    """The server of a call that is cancelled in mid-answer sees the end of the connection."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        begun.set()
        await reader.read()
        ended.set()

    async with listening(begin) as port:
        task = asyncio.create_task(call(transport, f"http://127.0.0.1:{port}/v1"))
        await begun.wait()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), LONG)
        assert task.cancelled()


@pytest.mark.parametrize("offset", [-0.002, -0.001, 0.0, 0.001, 0.002])
async def test_cancellation_at_the_deadline_is_never_lost(
    server: HostileServer, offset: float
) -> None:
    """Forty tries each: the call was cancelled or timed out, and never just goes on."""
    transport = Transport(max_connections=100)
    loop = asyncio.get_running_loop()
    outcomes = []

    async def attempt() -> str:
        task = asyncio.create_task(call(transport, f"{server.url}/hang", timeout=SHORT))
        asked: list[bool] = []
        loop.call_later(SHORT + offset, lambda: asked.append(task.cancel()))
        try:
            await asyncio.wait_for(asyncio.wait({task}), LONG)
            return "cancelled" if task.cancelled() else type(task.exception()).__name__
        finally:
            # A cancellation that was accepted must show, else the task ended before it came.
            if asked == [True]:
                assert task.cancelled()

    for _ in range(2):
        outcomes += await asyncio.gather(*(attempt() for _ in range(20)))
    await transport.aclose()

    assert len(outcomes) == 40
    assert set(outcomes) <= {"cancelled", "APITimeoutError"}
