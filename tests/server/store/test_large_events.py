"""Events of megabytes: sent in pieces, to readers of any speed, in bounded memory."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from openai_runs.config import READER_BACKLOG
from openai_runs.server import Call, CallTools, Say
from tests.databases import execute
from tests.server.conftest import Serve
from tests.server.http.test_sse_readers import (
    deaf_reader,
    dropped,
    narrow_server,
    receive,
    resident_bytes,
)
from tests.server.http.test_sse_response import outputs_of
from tests.server.support import run_path

LARGE = "0123456789abcdef" * (5 * 1024 * 1024 // 16)
"""5 MB."""


async def test_large_events_are_replayed_byte_for_byte(serve: Serve) -> None:
    """Whole, and after each event, in pieces that no event fits into."""
    calls = CallTools([Call("weather", {"city": LARGE[:700_000]})], text=[LARGE[:600_000]])
    caller = await serve(calls, Say([LARGE[:300_000], LARGE[:900_000]]))
    first = await caller.start_stream()
    waiting = first.events[-1].data
    second = await caller.stream(f"{run_path(waiting)}/submit_tool_outputs", outputs_of(waiting))
    events = [*first.events, *second.events]

    whole = await caller.replay(waiting)
    rests = [await caller.replay(waiting, after=event.id) for event in events]

    assert max(len(event.frame) for event in events) > 3 * READER_BACKLOG
    assert [event.frame for event in whole.events] == [event.frame for event in events]
    for number, rest in enumerate(rests, 1):
        assert rest.done
        assert [e.frame for e in rest.events] == [e.frame for e in events[number:]]


@pytest.mark.timeout(120)
async def test_stuck_readers_of_a_large_event_share_little_memory() -> None:
    """A hundred that read nothing hold a piece of it each, and never the whole."""
    async with narrow_server([Say(LARGE)], write_timeout=30) as caller:
        run = await caller.settled(await caller.start())
        await caller.replay(run)
        before = resident_bytes()
        readers = [await deaf_reader(caller, f"{run_path(run)}/stream") for _ in range(100)]
        peak = 0
        with anyio.move_on_after(3):
            while True:
                peak = max(peak, resident_bytes())
                await anyio.sleep(0.05)
        for reader in readers:
            reader.close()

    assert peak - before < 100 * 1024 * 1024


async def test_slow_reader_of_a_large_event_is_not_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It takes longer for the whole than a silent reader is borne, but takes some all the time."""
    caplog.set_level(logging.WARNING, "openai_runs.server")
    async with narrow_server([Say(LARGE[: 1024 * 1024])], write_timeout=1.0) as caller:
        run = await caller.settled(await caller.start())
        reader = await deaf_reader(caller, f"{run_path(run)}/stream")
        began, received = time.monotonic(), b""
        while piece := await receive(reader):
            received += piece
            if received.count(b"\n\n") < 12 and len(received) < 1_000_000:
                await anyio.sleep(len(piece) / 400_000)
        took = time.monotonic() - began
        reader.close()

    assert took > 2
    assert dropped(caplog, run) == 0
    assert b"[DONE]" in received


@pytest.mark.parametrize(
    "statement",
    ["UPDATE events SET epoch = 9", "DELETE FROM events"],
    ids=["written anew", "gone"],
)
async def test_stream_ends_within_an_event_that_is_taken_back(
    tmp_path: Path, statement: str
) -> None:
    """What comes after the piece is not the rest of it, so nothing comes."""
    db = tmp_path / "taken.db"
    async with narrow_server([Say(LARGE)], db=db) as caller:
        run = await caller.settled(await caller.start())
        reader = await deaf_reader(caller, f"{run_path(run)}/stream")
        received = b""
        while len(received) < 100_000:
            received += await receive(reader)
        await anyio.to_thread.run_sync(execute, db, statement)
        with anyio.fail_after(20):
            while piece := await receive(reader):
                received += piece
        reader.close()

    assert b"[DONE]" not in received
    assert len(received) < len(LARGE)
