"""After a crash every run ends legally, and nothing happens twice."""

from __future__ import annotations

import random
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest

from openai_runs.server import ModelRequest, Say, ScriptedBackend, SystemClock
from tests.databases import Database, Db, execute
from tests.server.conftest import Serve
from tests.server.dooming import doomed
from tests.server.killed_server import script
from tests.server.support import Caller, run_path
from tests.tiers import few

if TYPE_CHECKING:
    from blockbuster import BlockBuster

KEY = {"Idempotency-Key": "key-1"}


def finish(request: ModelRequest) -> Say:
    """Answer everything, as a server that is well does."""
    return Say("Finished.")


@pytest.mark.timeout(120)
async def test_every_run_ends_when_the_server_was_killed(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """Queued, at work, waiting, being cancelled: each goes on from where it was stored."""
    db = database(tmp_path / "killed.db")
    async with doomed(db, slots=1) as server:
        before = server.caller
        waiting = await before.settled(await before.start("tool"))
        body = {"assistant_id": waiting["assistant_id"]}
        working = await before.reaches(await before.start("hang"), "in_progress")
        await before.begun(working)
        half = (await before.messages(working))[-1]
        queued = await before.start("hello")
        path = f"/threads/{await before.thread('hello')}/runs"
        once = await before.send("POST", path, json=body, headers=KEY)
        await server.kill()

    caller = await serve(backend=ScriptedBackend(finish), db=db)
    again = await caller.send("POST", path, json=body, headers=KEY)
    waits_on = await caller.get(run_path(waiting))
    ended = [await caller.settled(run) for run in (working, queued, once.json)]
    answered = await caller.settled((await caller.submit(waits_on)).json)

    assert again.text == once.text
    assert waits_on == waiting
    assert [run["status"] for run in (*ended, answered)] == ["completed"] * 4
    (step,) = await caller.steps(working)
    message = (await caller.messages(working))[-1]
    assert step["step_details"]["message_creation"]["message_id"] == half["id"] == message["id"]
    assert message["content"][0]["text"]["value"] == "Finished."
    assert len(await caller.messages(working)) == 2
    assert [s["type"] for s in await caller.steps(answered)] == ["tool_calls", "message_creation"]


@pytest.mark.timeout(120)
async def test_cancelling_run_is_cancelled_when_the_server_comes_back(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """A cancel that was answered is not forgotten."""
    db = database(tmp_path / "killed.db")
    async with doomed(db) as server:
        run = await server.caller.reaches(await server.caller.start("hang"), "in_progress")
        await server.kill()
    # The moment between the two commits is too short to be hit from outside.
    execute(
        db,
        "UPDATE runs SET status = 'cancelling',"
        """ body = replace(body, '"status":"in_progress"', '"status":"cancelling"')""",
    )

    caller = await serve(db=db)

    assert (await caller.reaches(run, "cancelled"))["cancelled_at"] is not None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", few(range(8), kept=[0], rest=pytest.mark.kills))
async def test_no_run_is_stuck_or_doubled_when_killed_anywhere(
    tmp_path: Path, database: Database, serve: Serve, seed: int
) -> None:
    """Killed at a random moment under load: every created run ends once, with one answer."""
    chance = random.Random(seed)
    db = database(tmp_path / "anywhere.db")
    created: list[Any] = []
    async with doomed(db, slots=8) as server:
        caller = server.caller
        assistant_id = await caller.assistant()
        enough = chance.randrange(5, 60)
        reached = anyio.Event()

        async def create() -> None:
            while not reached.is_set():
                thread = {"messages": [{"role": "user", "content": "slow"}]}
                body = {"assistant_id": assistant_id, "thread": thread}
                try:
                    reply = await caller.send("POST", "/threads/runs", json=body)
                except aiohttp.ClientError:
                    reached.set()
                    return
                created.append(reply.json)
                if len(created) >= enough:
                    reached.set()

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(create)
            await reached.wait()
            assert await server.kill() == -signal.SIGKILL  # and it did not die before

    caller = await serve(backend=ScriptedBackend(finish), db=db)
    for run in created:
        ended = await caller.settled(run)
        assert ended["status"] == "completed"
        assert [step["status"] for step in await caller.steps(run)] == ["completed"]
        assert [m["role"] for m in await caller.messages(run)] == ["user", "assistant"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("looks", few(range(2, 26), kept=[3, 10, 17], rest=pytest.mark.kills))
async def test_run_ends_once_when_killed_before_a_write(
    tmp_path: Path, database: Database, serve: Serve, looks: int
) -> None:
    """A tool call and an answer, the server killed before the n-th write: all goes on."""
    db = database(tmp_path / "writes.db")
    async with doomed(db, looks=looks) as server:
        with suppress(aiohttp.ClientError):
            await ask_with_a_tool(server.caller)

    await check_all_goes_on(await serve(backend=ScriptedBackend(script), db=db), db)


@pytest.mark.sqlite("copies the file")
async def test_run_ends_once_whatever_write_was_the_last(
    tmp_path: Path, serve: Serve, blockbuster: BlockBuster
) -> None:
    """The files as a kill would leave them before each write, taken while nothing is killed."""
    for function in blockbuster.functions.values():
        function.can_block_in(Path(__file__).name, "copy")
    clock = CopyingClock(tmp_path / "writes.db")
    await ask_with_a_tool(
        await serve(backend=ScriptedBackend(script), db=tmp_path / "writes.db", clock=clock)
    )

    looked_at = tmp_path / "looked-at.db"  # which changes the file that is looked at
    found: set[str] = set()
    for db in clock.copies:
        copy(db, looked_at)
        found.update(status for *_, status in runs_in(looked_at))
        caller = await serve(backend=ScriptedBackend(script), db=db)
        await check_all_goes_on(caller, db)
        await caller.close()
    assert found == {"queued", "in_progress", "requires_action", "completed"}


class CopyingClock(SystemClock):
    """Looked at before each write, it keeps a copy of what has been written so far."""

    def __init__(self, db: Path) -> None:
        self._db = db
        self.copies: list[Path] = []

    def now(self) -> float:
        """Return Unix seconds."""
        self.copies.append(self._db.with_name(f"before-{len(self.copies)}.db"))
        copy(self._db, self.copies[-1])
        return super().now()


def copy(db: Path, to: Path) -> None:
    """Copy the database, then its log: what is written meanwhile is cut off, as by a kill."""
    for ending in ("", "-wal"):
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{db}{ending}", f"{to}{ending}")


def runs_in(db: Db) -> list[tuple[str, str, str]]:
    """Return the runs that are stored: thread, id and status."""
    return execute(db, "SELECT thread_id, id, status FROM runs")


async def ask_with_a_tool(caller: Caller) -> None:
    """Have a run call its tool, and answer."""
    waiting = await caller.settled(await caller.start("tool"))
    await caller.settled((await caller.submit(waiting)).json)


async def check_all_goes_on(caller: Caller, db: Db) -> None:
    """Check that the run, if it was stored, ends with one call of the tool and one answer."""
    left = runs_in(db)
    for thread_id, run_id, status in left:
        run = await caller.settled({"thread_id": thread_id, "id": run_id, "status": "queued"})
        if run["status"] == "requires_action":
            run = await caller.settled((await caller.submit(run)).json)
        assert run["status"] == "completed", (db, status)
        assert [(s["type"], s["status"]) for s in await caller.steps(run)] == [
            ("tool_calls", "completed"),
            ("message_creation", "completed"),
        ]
        assert [m["role"] for m in await caller.messages(run)] == ["user", "assistant"]
        assert run["usage"]["total_tokens"] == 30
    assert len(left) <= 1


async def test_row_that_cannot_be_read_stops_no_other_run(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """A damaged run is logged and left; the server starts, and others are executed."""
    db = database(tmp_path / "row.db")
    async with doomed(db) as server:
        run = await server.caller.reaches(await server.caller.start("hang"), "in_progress")
        await server.kill()
    execute(db, "UPDATE runs SET body = '{'")

    caller = await serve(db=db)
    other = await caller.settled(await caller.start())
    damaged = [
        await caller.send("GET", path) for path in (run_path(run), run_path(run).rpartition("/")[0])
    ]

    assert other["status"] == "completed"
    assert [reply.status for reply in damaged] == [500, 500]


@pytest.mark.timeout(120)
async def test_sigterm_puts_back_what_does_not_finish_in_time(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """Draining loses no attempt: the run waits in the queue for the next server."""
    db = database(tmp_path / "drained.db")
    async with doomed(db) as server:
        run = await server.caller.reaches(await server.caller.start("hang"), "in_progress")
        await server.caller.begun(run)
        assert await server.kill(signal.SIGTERM) == 0

    caller = await serve(backend=ScriptedBackend(finish), db=db)
    ended = await caller.settled(run | {"status": "queued"})

    assert ended["status"] == "completed"
    assert len(await caller.steps(run)) == 1
