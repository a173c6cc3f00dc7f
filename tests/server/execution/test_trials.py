"""After a crash the guilty run is found and failed, and no other pays for it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from openai_runs.config import MAX_RUN_ATTEMPTS
from openai_runs.server import Finish, ModelEvent, ModelRequest, Say, ScriptedBackend, TextDelta
from openai_runs.server.execution import trials
from tests.databases import Database, Db, execute
from tests.server.conftest import Serve
from tests.server.dooming import Doomed, doomed
from tests.server.support import Caller, ManualClock
from tests.tiers import few

CRASHED = {
    "code": "server_error",
    "message": "The server crashed 3 times in a row within seconds of starting this run, "
    "so the run is not started again.",
}

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.sqlite("counts the crashes of the only process; sweeps count those of several"),
]


async def start(caller: Caller, question: str, count: int = 1) -> list[Any]:
    """Return new runs, each on a thread of its own."""
    assistant_id = await caller.assistant()
    thread = {"messages": [{"role": "user", "content": question}]}
    body = {"assistant_id": assistant_id, "thread": thread}
    return [await caller.post("/threads/runs", body) for _ in range(count)]


async def start_fatal(server: Doomed, *questions: str) -> None:
    """Start these, of which one at least kills the server before it can answer."""
    thread = [await server.caller.thread(question) for question in questions]
    assistant_id = await server.caller.assistant()
    for thread_id in thread:
        with suppress(aiohttp.ClientError):
            await server.caller.send(
                "POST", f"/threads/{thread_id}/runs", json={"assistant_id": assistant_id}
            )


def runs_in(db: Db) -> list[tuple[str, str, int]]:
    """Return the id, the status and the counted attempts of each run, oldest first."""
    return execute(db, "SELECT id, status, attempts FROM runs ORDER BY seq")


def set_attempts(db: Db, *attempts: int) -> None:
    """Write the counts of the runs, oldest first."""
    for number, (run_id, *_) in zip(attempts, runs_in(db), strict=True):
        execute(db, "UPDATE runs SET attempts = ? WHERE id = ?", number, run_id)


async def crashes_until_done(db: Db, most: int) -> int:
    """Start servers until one lives to end all runs; return how many crashed."""
    for crashes in range(most + 1):
        async with doomed(db) as server, anyio.create_task_group() as group:

            async def watch(server: Doomed, scope: anyio.CancelScope) -> None:
                await server.process.wait()
                scope.cancel()

            group.start_soon(watch, server, group.cancel_scope)
            while {"queued", "in_progress"} & {status for _, status, _ in runs_in(db)}:  # noqa: ASYNC110 - nobody announces that
                await anyio.sleep(0.05)
            group.cancel_scope.cancel()
            return crashes
    message = f"{most} more crashes"
    raise AssertionError(message)


async def leave_at_work(db: Db, *questions: str) -> list[Any]:
    """Kill a server with these runs at work, and return them."""
    async with doomed(db) as server:
        runs = [run for each in questions for run in await start(server.caller, each)]
        for run in runs:
            await server.caller.reaches(run, "in_progress")
        await server.kill()
    return runs


GUILTY = {
    "exits": ["exit"],
    "killed": ["die"],
    "segmentation fault": ["fault"],
    "after its first event": ["die late"],
    "two": ["exit", "fault"],
    "two, one of them late": ["die late", "exit"],
}


@pytest.mark.parametrize(
    "kind", few(GUILTY, kept=["exits", "after its first event"], rest=pytest.mark.kills)
)
async def test_guilty_run_is_failed_and_twenty_innocents_complete(
    tmp_path: Path, database: Database, serve: Serve, kind: str
) -> None:
    """One crash makes it a suspect, three more end it; at most that for each of two."""
    db, guilty = database(tmp_path / "runs.db"), GUILTY[kind]
    held = tmp_path / "runs.db.held"
    held.touch()
    async with doomed(db, held=held) as server:
        innocent = await start(server.caller, "held", 20)
        for run in innocent:
            await server.caller.reaches(run, "in_progress")
        await start_fatal(server, *guilty)
        assert await server.process.wait() != 0
    held.unlink()
    at_work = [run_id for run_id, status, _ in runs_in(db) if status == "in_progress"]
    assert len(at_work) >= 20

    crashes = 1 + await crashes_until_done(db, most=4 * len(guilty))

    assert crashes <= (1 + MAX_RUN_ATTEMPTS) * len(guilty)
    found = {run_id: status for run_id, status, _ in runs_in(db)}
    assert [found.pop(run["id"]) for run in innocent] == ["completed"] * 20
    caller = await serve(db=db)
    rows = execute(db, "SELECT id, thread_id FROM runs WHERE status = 'failed'")
    errors = [
        (await caller.get(f"/threads/{thread_id}/runs/{run_id}"))["last_error"]
        for run_id, thread_id in rows
    ]
    assert found == {run_id: "failed" for run_id, _ in rows}
    assert errors == [CRASHED] * len(found)


class Gate:
    """A backend whose answers wait to be let through."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.opened = anyio.Event()
        self._waiting: dict[str, anyio.Event] = {}
        self._changed = anyio.Event()

    async def respond(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer once the run is let through; a fresh one at once."""
        if request.question != "fresh":
            self.begun.append(request.run.id)
            self._waiting[request.run.id] = anyio.Event()
            self._changed.set()
            await self._waiting[request.run.id].wait()
        yield TextDelta("Fine.")
        yield Finish()

    def let_through(self, run_id: str) -> None:
        """Have the run's answer come."""
        self._waiting[run_id].set()

    async def begins(self, *run_ids: str) -> None:
        """Return once exactly these have begun, in this order."""
        with anyio.fail_after(20):
            while len(self.begun) < len(run_ids):
                self._changed = anyio.Event()
                await self._changed.wait()
        assert self.begun == list(run_ids)


async def test_suspects_begin_one_after_the_other_and_fresh_runs_at_once(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """While the first is tried the others wait, and what is new or was queued goes on."""
    db = database(tmp_path / "runs.db")
    first, second, third = (run["id"] for run in await leave_at_work(db, *["hang"] * 3))
    gate = Gate()
    caller = await serve(backend=gate, db=db)

    await gate.begins(first)
    (fresh,) = await start(caller, "fresh")
    assert (await caller.settled(fresh))["status"] == "completed"
    await gate.begins(first)
    gate.let_through(first)
    await gate.begins(first, second)
    gate.let_through(second)
    await gate.begins(first, second, third)
    gate.let_through(third)


async def test_slow_suspect_does_not_hold_up_the_others(
    tmp_path: Path, database: Database, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time it goes on beside the next, and nothing counts against it any more."""
    monkeypatch.setattr(trials, "TRIAL_TIME", 0.5)  # longer than a claim takes
    db = database(tmp_path / "runs.db")
    runs = await leave_at_work(db, *["hang"] * 3)
    gate = Gate()
    caller = await serve(backend=gate, db=db)

    await gate.begins(*(run["id"] for run in runs))
    with anyio.fail_after(20):
        while any(attempts for *_, attempts in runs_in(db)):  # noqa: ASYNC110 - not announced
            await anyio.sleep(0.01)
    for run in runs:
        gate.let_through(run["id"])
    assert [(await caller.settled(run))["status"] for run in runs] == ["completed"] * 3


async def test_slots_are_kept_when_suspects_are_tried(
    tmp_path: Path, database: Database, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspect gets the next free slot, and no more than that."""
    monkeypatch.setattr(trials, "TRIAL_TIME", 0.05)
    db = database(tmp_path / "runs.db")
    first, second = (run["id"] for run in await leave_at_work(db, "hang", "hang"))
    gate = Gate()
    caller = await serve(backend=gate, db=db, max_concurrent_runs=1)

    (fresh,) = await start(caller, "fresh")
    await gate.begins(first)
    assert (await caller.get(f"/threads/{fresh['thread_id']}/runs/{fresh['id']}"))[
        "status"
    ] == "queued"
    gate.let_through(first)
    await gate.begins(first, second)
    gate.let_through(second)
    assert (await caller.settled(fresh))["status"] == "completed"


@pytest.mark.parametrize("crashes", [1, 2])
async def test_crash_before_the_trial_clears_the_run(
    tmp_path: Path, database: Database, serve: Serve, crashes: int
) -> None:
    """What kills a server in which the run is not at work is something else."""
    db = database(tmp_path / "runs.db")
    (run,) = await leave_at_work(db, "hang")
    set_attempts(db, crashes)

    async with doomed(db) as server:  # it waits before the trial
        await start(server.caller, "hello")
        await server.kill()

    assert (run["id"], "in_progress", 0) in runs_in(db)
    caller = await serve(backend=ScriptedBackend(lambda _: Say("Fine.")), db=db)
    assert (await caller.settled(run))["status"] == "completed"


async def test_crash_in_a_trial_counts_for_that_run_alone(
    tmp_path: Path, database: Database
) -> None:
    """Those that wait for their trials, and those that are new, pay nothing."""
    db = database(tmp_path / "runs.db")
    first, second, third = await leave_at_work(db, *["hang"] * 3)

    async with doomed(db) as server:
        (fresh,) = await start(server.caller, "hang")
        await server.caller.reaches(fresh, "in_progress")
        await server.caller.begun(first)
        await server.kill()

    assert [(run_id, count) for run_id, _, count in runs_in(db)] == [
        (first["id"], 1),
        (second["id"], 0),
        (third["id"], 0),
        (fresh["id"], 0),
    ]


async def test_clean_stop_in_a_trial_takes_it_back(tmp_path: Path, database: Database) -> None:
    """Stopped before the trial or in it, as often as you like: what counted before counts still."""
    db = database(tmp_path / "runs.db")
    (run,) = await leave_at_work(db, "hang")

    for _ in range(2):
        async with doomed(db) as server:
            await server.caller.begun(run)
            assert await server.kill(signal.SIGTERM) == 0
        assert runs_in(db) == [(run["id"], "queued", 0)]
    set_attempts(db, 2)
    for _ in range(2):
        async with doomed(db) as server:  # it waits before the trial
            assert await server.kill(signal.SIGTERM) == 0
        assert runs_in(db) == [(run["id"], "queued", 2)]


@pytest.mark.kills
async def test_guilty_run_is_found_with_clean_stops_in_between(
    tmp_path: Path, database: Database
) -> None:
    """A supervisor that stops and starts does not hide it."""
    db = database(tmp_path / "runs.db")
    async with doomed(db) as server:
        await start_fatal(server, "exit")
        await server.process.wait()
    async with doomed(db) as server:
        await server.process.wait()
    for crashes in range(1, MAX_RUN_ATTEMPTS):
        async with doomed(db) as server:  # it waits before the trial
            assert await server.kill(signal.SIGTERM) == 0
        assert [count for *_, count in runs_in(db)] == [crashes]
        async with doomed(db) as server:
            await server.process.wait()
    assert await crashes_until_done(db, most=1) == 0

    ((_, status, _),) = runs_in(db)
    assert status == "failed"


async def test_no_time_of_the_clock_counts(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """Ten minutes forth in a trial expire what is due, and a year back changes nothing."""
    db = database(tmp_path / "runs.db")
    first, second = await leave_at_work(db, "hang", "hang")
    gate, clock = Gate(), ManualClock(first["created_at"])
    caller = await serve(backend=gate, db=db, clock=clock)

    await gate.begins(first["id"])
    clock.advance(-365 * 24 * 3600)
    gate.let_through(first["id"])
    await gate.begins(first["id"], second["id"])
    clock.advance(365 * 24 * 3600 + 601)

    assert (await caller.settled(first))["status"] == "completed"
    assert (await caller.settled(second))["status"] == "expired"


async def test_counts_of_earlier_versions_fail_no_run_below_the_limit(
    tmp_path: Path, database: Database, serve: Serve
) -> None:
    """They counted each start, so all runs at work have a count: all of them complete."""
    db = database(tmp_path / "runs.db")
    runs = await leave_at_work(db, *["hang"] * 3)
    set_attempts(db, 2, 1, 2)

    caller = await serve(backend=ScriptedBackend(lambda _: Say("Fine.")), db=db)

    assert [(await caller.settled(run))["status"] for run in runs] == ["completed"] * 3
