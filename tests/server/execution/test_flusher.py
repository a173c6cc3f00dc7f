"""Storing while the model speaks: in batches, in order, and never at the model's cost."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from openai_runs.config import FLUSH_BYTES
from openai_runs.server import (
    Call,
    CallTools,
    Finish,
    Hang,
    ModelEvent,
    ModelRequest,
    Say,
    ScriptedBackend,
    TextDelta,
)
from openai_runs.server.store.migrations import SCHEMA_VERSION
from tests.databases import Database, Db, end_trouble, execute, make_trouble, refuse
from tests.server.conftest import Serve
from tests.server.dooming import doomed
from tests.server.execution.test_restart import finish
from tests.server.http.test_sse_response import read_until, rest_of, start_and_read
from tests.server.support import run_path, told_text


async def rows_of(db: Db, run: Any) -> list[int]:
    """Return how many events each piece of work told of the run."""

    def read() -> list[int]:
        query = "SELECT last - first + 1 FROM events WHERE run_id = ? ORDER BY last"
        return [count for (count,) in execute(db, query, run["id"])]

    return await anyio.to_thread.run_sync(read)


async def test_deltas_share_transactions_while_somebody_reads(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """At most about twenty writes a second, however many pieces there are."""
    db = database(tmp_path / "read.db")
    caller = await serve(Say(["word "] * 1000, pause=0.0005), db=db)

    with anyio.fail_after(30):
        began = anyio.current_time()
        events = (await caller.start_stream()).events
        took = anyio.current_time() - began
    rows = await rows_of(db, events[0].data)

    assert [e.name for e in events].count("thread.message.delta") == 1000
    assert sum(rows) == len(events)
    assert 4 <= len(rows) <= 6 + took / 0.05


@pytest.mark.sqlite("elsewhere somebody may read through another process")
async def test_deltas_share_more_where_nobody_reads(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """One write when the message begins, one a second, one at the end."""
    db = database(tmp_path / "unread.db")
    caller = await serve(Say(["word "] * 400, pause=0.0005), db=db)

    began = anyio.current_time()
    run = await caller.settled(await caller.start())
    took = anyio.current_time() - began
    rows = await rows_of(db, run)

    assert sum(rows) == 2 + 1 + 4 + 400 + 3
    assert len(rows) <= 4 + took


async def test_answer_that_comes_at_once_is_one_write(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """Created, taken up, and all the rest with its end."""
    db = database(tmp_path / "once.db")

    class Quick:
        """Never waits."""

        async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
            """Answer."""
            for word in ("Not ", "a ", "pause."):
                yield TextDelta(word)
            yield Finish()

    caller = await serve(backend=Quick(), db=db)
    run = await caller.settled(await caller.start())

    assert await rows_of(db, run) == [2, 1, 4 + 3 + 3]


async def test_much_text_is_written_although_nobody_reads(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """What waits for the disk is bounded, not by the clock alone."""
    db = database(tmp_path / "much.db")
    caller = await serve(Say(["x" * FLUSH_BYTES] * 8, pause=0.05), db=db)

    run = await caller.settled(await caller.start())

    # More than created, taken up, begun and ended.
    assert len(await rows_of(db, run)) > 4


async def test_reader_that_comes_late_need_not_wait_for_the_next_write(serve: Serve) -> None:
    """What the model has said is written when somebody comes to read it."""
    caller = await serve(Hang(["Half ", "a ", "word"]))
    run = await caller.reaches(await caller.start(), "in_progress")
    await caller.begun(run)

    url = f"{caller.url}/threads/{run['thread_id']}/runs/{run['id']}/stream"
    async with caller.session.get(url) as response:
        text = b""
        with anyio.fail_after(20):
            while b'"word"' not in text:
                text += await response.content.readany()


class Talker:
    """Says a hundred words, and tells when it has."""

    def __init__(self) -> None:
        self.spoken = anyio.Event()

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer."""
        for number in range(100):
            await anyio.sleep(0.005)
            yield TextDelta(f"{number} ")
        self.spoken.set()
        yield Finish()


WORDS = "".join(f"{number} " for number in range(100))


async def test_model_is_read_on_while_the_disk_refuses(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """Nothing is lost, and nothing doubled: it is all written once that is possible."""
    db, talker = database(tmp_path / "refused.db"), Talker()
    caller = await serve(backend=talker, db=db)
    response, before = await start_and_read(caller, "message.created")

    await anyio.to_thread.run_sync(make_trouble, db, "events")
    with anyio.fail_after(20):
        await talker.spoken.wait()
    await anyio.to_thread.run_sync(end_trouble, db, "events")
    after = await rest_of(response)

    assert told_text([*before, *after.events]) == WORDS
    assert after.names[-1] == "run.completed"
    assert told_text((await caller.replay(before[0].data)).events) == WORDS


async def test_cancelled_run_loses_nothing_to_a_disk_that_refuses(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """What a failed write has put back is written with the end."""
    db, talker = database(tmp_path / "cancelled.db"), Talker()
    caller = await serve(backend=talker, db=db)
    response, before = await start_and_read(caller, "message.created")
    run = before[0].data

    await anyio.sleep(0.1)
    await caller.post(f"/threads/{run['thread_id']}/runs/{run['id']}/cancel")
    await anyio.to_thread.run_sync(make_trouble, db, "events", "NEW.epoch < 0")
    await anyio.sleep(0.1)
    await anyio.to_thread.run_sync(end_trouble, db, "events")
    after = await rest_of(response)

    (message,) = [e.data for e in after.events if e.name == "thread.message.incomplete"]
    assert told_text([*before, *after.events]) == message["content"][0]["text"]["value"]
    assert WORDS.startswith(message["content"][0]["text"]["value"])
    assert after.names[-1] == "run.cancelled"


async def test_cancelled_run_tells_all_it_said(serve: Serve) -> None:
    """Pieces that were not written yet come before the end of the message."""
    caller = await serve(CallTools([Call("f", {"a": "b" * 200})], chunk=1, pause=0.002))
    response, before = await start_and_read(caller, "step.delta")
    run = before[0].data

    await caller.post(f"/threads/{run['thread_id']}/runs/{run['id']}/cancel")
    after = await rest_of(response)

    deltas = [e for e in [*before, *after.events] if e.name == "thread.run.step.delta"]
    pieces = [d.data["delta"]["step_details"]["tool_calls"][0]["function"] for d in deltas]
    (step,) = [e.data for e in after.events if e.name == "thread.run.step.cancelled"]
    (call,) = step["step_details"]["tool_calls"]
    assert "".join(piece["arguments"] for piece in pieces) == call["function"]["arguments"]
    assert after.names[-2:] == ["run.step.cancelled", "run.cancelled"]


async def test_run_fails_when_its_pieces_cannot_be_stored(
    tmp_path: Path, database: Database, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The model call is given up at once, and the log says why."""
    caplog.set_level(logging.ERROR)
    db = database(tmp_path / "broken.db")
    caller = await serve(Hang(["Half ", "a"]), "Fine.", db=db)
    await anyio.to_thread.run_sync(refuse, db, "messages", "NEW.run_id IS NOT NULL")
    run = await caller.settled(await caller.start())

    assert run["status"] == "failed"
    # No words of PostgreSQL's are logged, which may quote a value.
    assert {"sqlite": "not this one", "postgresql": "RaiseException"}[database.kind] in caplog.text


TO_VERSION_1 = (
    "DROP TABLE workers",
    "ALTER TABLE runs DROP COLUMN worker",
    "ALTER TABLE steps DROP COLUMN echoed",
    "DROP TABLE run_shared_json",
    "DROP TABLE shared_json",
    "DROP TABLE events",
    "PRAGMA user_version = 1",
)
"""What takes a file of today back to the oldest schema."""


@pytest.mark.sqlite("PostgreSQL had no older schema")
async def test_version_1_file_gets_its_log(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """An older file is upgraded in place: runs stay, new ones are logged, old ones have no log."""
    db = database(tmp_path / "old.db")
    caller = await serve("Old.", db=db)
    old = await caller.settled(await caller.start())
    path = f"/threads/{old['thread_id']}/runs/{old['id']}"
    await caller.close()
    for statement in TO_VERSION_1:
        await anyio.to_thread.run_sync(execute, db, statement)

    caller = await serve("New.", db=db)
    kept = await caller.get(path)
    lost = await caller.send("GET", f"{path}/stream")
    new = await caller.start_stream()
    ((version,),) = execute(db, "PRAGMA user_version")

    assert kept == old
    assert (lost.status, lost.json["error"]["code"]) == (409, "stream_position_lost")
    assert new.names[-1] == "run.completed"
    assert version == SCHEMA_VERSION


@pytest.mark.sqlite("PostgreSQL had no older schema")
@pytest.mark.timeout(120)
async def test_turn_begun_before_there_was_a_log_is_told_once(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """A run at work in a version 1 file, killed, taken up with a log, and killed again."""
    db = database(tmp_path / "upgraded.db")
    async with doomed(db) as server:
        run = await server.caller.start("hang")
        await server.caller.begun(run)
        await server.kill()
    for statement in TO_VERSION_1:
        await anyio.to_thread.run_sync(execute, db, statement)
    async with doomed(db) as server:
        url, told = f"{server.caller.url}{run_path(run)}/stream", False
        with anyio.fail_after(20):
            while not told:
                async with server.caller.session.get(url) as response:
                    if response.status == 200:  # else there is no log of it yet
                        told = bool(await read_until(response, "message.delta"))
        await server.kill()

    caller = await serve(backend=ScriptedBackend(finish), db=db)
    await caller.settled(run)

    assert told_text((await caller.replay(run)).events) == "Finished."
