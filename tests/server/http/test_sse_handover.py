"""Where a stream goes over from what is stored to what is told, nothing waits for a heartbeat."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel

from openai_runs.server.events.subscribers import Reader
from openai_runs.server.http.sse_response import _Follower
from openai_runs.server.store import Change, Chunk, Logged, StreamStart, claims, open_store
from tests.server.store.test_races import DONE, NOW, Recorded, end, opening


class Heard(Recorded):
    """A store, and the chunks that it told."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[Chunk] = []

    def hear(self, change: Change) -> None:
        """Keep the chunk."""
        if isinstance(change, Logged):
            self.chunks.append(change.chunk)


async def test_end_is_sent_at_once_when_what_was_read_is_also_told(tmp_path: Path) -> None:
    """Chunks that were committed while the log was read are in both, several before the end."""
    heard = Heard()
    heard.store = store = await open_store(tmp_path / "runs.db", heard.hear)
    run = await heard.new_run()
    claim = await store.write(claims.claim, run.id, NOW)
    assert claim is not None
    await store.write(claims.write, run, claim.epoch, opening(run), NOW)
    stored = list(heard.chunks)
    reader = Reader()
    leg = StreamStart(thread_id=run.thread_id, run_id=run.id, after=0)
    follower = _Follower(store, reader, leg, heartbeat=3600)
    sent: list[bytes | None] = []

    async def read() -> None:
        sent.append(await follower.next())

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        while reader.behind:
            await anyio.lowlevel.checkpoint()
        for chunk in stored:
            reader.push(chunk)
    await end(store, run, DONE, claim.epoch)
    for chunk in heard.chunks[len(stored) :]:
        reader.push(chunk)
    with anyio.fail_after(10):
        while sent[-1] is not None:
            await read()
    await store.aclose()

    assert len(stored) > 2
    assert b"".join(body for body in sent if body) == b"".join(one.body for one in heard.chunks)
    assert follower.done
