"""Reading large rows of the log piece by piece, without reading them again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
import pytest

from openai_runs.config import READER_BACKLOG
from openai_runs.server import Say
from openai_runs.server.store.event_pages import EventLog, Piece
from openai_runs.server.store.shared_json import SharedJson
from openai_runs.server.store.sqlite.connection import open_reader
from openai_runs.server.store.sqlite.writer import Readers
from tests.server.conftest import Serve

pytestmark = pytest.mark.sqlite("which gives a row as a whole only: its statements are counted")

PIECES = 8
TEXT = "0123456789abcdef" * (PIECES * READER_BACKLOG // 16)
DONE = b"event: done\ndata: [DONE]\n\n"


class Watched(NamedTuple):
    """A log whose statements are written down."""

    log: EventLog
    statements: list[str]

    @property
    def rows_read(self) -> int:
        """Return how many statements asked for what is in a row."""
        return sum("events.body" in statement for statement in self.statements)


@asynccontextmanager
async def watched(db: Path, **options: Any) -> AsyncIterator[Watched]:
    """Open the log of a file beside its server."""
    statements: list[str] = []
    connection = await anyio.to_thread.run_sync(open_reader, db)
    connection.set_trace_callback(statements.append)
    readers = Readers([connection])
    try:
        yield Watched(EventLog(readers, SharedJson(readers), **options), statements)
    finally:
        await anyio.to_thread.run_sync(readers.close)
        connection.close()


async def read_whole(log: EventLog, run_id: str, pause: float = 0) -> tuple[bytes, int]:
    """Return a run's events, and in how many pieces they came."""
    body, pieces, after = b"", 0, 0
    within: Piece | None = None
    while True:
        page = await log.read(run_id, after, within)
        body += b"".join(chunk.body for chunk in page.chunks)
        after = page.chunks[-1].last if page.chunks else after
        if page.piece is not None:
            body, pieces = body + page.piece.body, pieces + 1
            within = page.piece if page.piece.end is not None else None
            after = page.piece.last if within is None else after
            await anyio.sleep(pause)
        if not page.more:
            return body, pieces


async def two_runs(serve: Serve, db: Path) -> dict[str, bytes]:
    """Return what readers are sent of two runs with large answers, by the run's id."""
    caller = await serve(Say(TEXT), Say(TEXT[16:]), db=db)
    runs = [await caller.settled(await caller.start()) for _ in range(2)]
    return {run["id"]: (await caller.replay(run)).body for run in runs}


@pytest.mark.parametrize("readers", [1, 5])
async def test_large_row_is_read_once_for_all_its_readers(
    serve: Serve, tmp_path: Path, readers: int
) -> None:
    """And not once for each piece, also where two runs are read at the same time."""
    db = tmp_path / "large.db"
    runs = await two_runs(serve, db)
    got: list[tuple[str, bytes, int]] = []

    async with watched(db) as log:

        async def read(run_id: str) -> None:
            got.append((run_id, *await read_whole(log.log, run_id)))

        async with anyio.create_task_group() as group:
            for run_id in [*runs] * readers:
                group.start_soon(read, run_id)

    assert min(pieces for _, _, pieces in got) > PIECES
    assert log.rows_read <= 4 * len(got)  # what is small before and after it
    for run_id, body, _ in got:
        assert body + DONE == runs[run_id]


async def test_large_row_is_let_go_of_while_nobody_takes_any_of_it(
    serve: Serve, tmp_path: Path
) -> None:
    """It is read again for each piece of a reader that pauses for longer than it is kept."""
    db = tmp_path / "slow.db"
    (run_id, sent), *_ = (await two_runs(serve, db)).items()

    async with watched(db, kept_for=0.01) as log:
        body, pieces = await read_whole(log.log, run_id, pause=0.1)

    assert body + DONE == sent
    assert log.rows_read >= pieces
