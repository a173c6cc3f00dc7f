"""Expiry: by the stored deadline, in every status, also when nobody was there to see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from openai_runs.server import Call, CallTools, Hang, LocalServer, ScriptedBackend
from tests.databases import Database
from tests.server.conftest import Serve
from tests.server.support import Caller, ManualClock, run_path

TOOLS = CallTools([Call("weather")])


async def test_run_at_work_expires_with_what_it_was_writing(serve: Serve) -> None:
    """At its deadline and not before; the step expires, the message stays incomplete."""
    clock = ManualClock()
    caller = await serve(Hang("Half a"), clock=clock)
    run = await caller.reaches(await caller.start(), "in_progress")
    await caller.begun(run)

    clock.advance(599)
    early = await caller.get(run_path(run))
    clock.advance(1)
    late = await caller.reaches(run, "expired")

    (step,) = await caller.steps(late)
    message = (await caller.messages(late))[-1]
    assert early["status"] == "in_progress"
    assert (late["expires_at"], late["last_error"], late["completed_at"]) == (None, None, None)
    assert (step["status"], step["expired_at"]) == ("expired", run["expires_at"])
    assert message["incomplete_details"] == {"reason": "run_expired"}
    assert message["content"][0]["text"]["value"] == "Half a"


async def test_waiting_run_expires_and_refuses_its_outputs(serve: Serve) -> None:
    """Outputs that come too late are told so, and the thread is free again."""
    clock = ManualClock()
    caller = await serve(TOOLS, "Next.", clock=clock)
    waiting = await caller.settled(await caller.start())

    clock.advance(600)
    run = await caller.get(run_path(waiting))
    late = await caller.submit(waiting)
    expired = await caller.reaches(run, "expired") if run["status"] != "expired" else run
    body = {"assistant_id": run["assistant_id"]}
    following = await caller.post(f"/threads/{run['thread_id']}/runs", body)

    (step,) = await caller.steps(expired)
    assert late.message == 'Runs in status "expired" do not accept tool outputs.'
    assert (expired["required_action"], step["status"]) == (None, "expired")
    assert (await caller.settled(following))["status"] == "completed"


async def test_run_that_never_started_expires(serve: Serve) -> None:
    """A run in the queue has a deadline too."""
    clock = ManualClock()
    caller = await serve(Hang(), max_concurrent_runs=1, clock=clock, run_lifetime=100)
    await caller.reaches(await caller.start(), "in_progress")
    second = await caller.start()

    clock.advance(100)
    ended = await caller.reaches(second, "expired")

    assert (ended["started_at"], ended["usage"]["total_tokens"]) == (None, 0)


@pytest.mark.parametrize("turn", [Hang("Half a"), TOOLS], ids=["in-progress", "waiting"])
async def test_run_expires_when_the_server_was_away(
    tmp_path: Path, database: Database, serve: Serve, turn: Any
) -> None:
    """A server that comes back after the deadline ends the run before anything else."""
    clock = ManualClock()
    db = database(tmp_path / "away.db")
    async with (
        LocalServer(db, ScriptedBackend([turn]), clock=clock) as server,
        aiohttp.ClientSession() as session,
    ):
        before = Caller(session, server.url)
        run = await before.start()
        await before.begun(run)

    clock.advance(1000)
    caller = await serve(db=db, clock=clock)
    ended = await caller.reaches(run, "expired")

    assert [step["status"] for step in await caller.steps(ended)] == ["expired"]


async def test_times_never_go_back_when_the_clock_does(serve: Serve) -> None:
    """A clock set back by an hour does not make a run finish before it began."""
    clock = ManualClock()
    caller = await serve(TOOLS, "Done.", clock=clock)
    waiting = await caller.settled(await caller.start())

    clock.advance(-3600)
    run = await caller.settled((await caller.submit(waiting)).json)

    assert run["status"] == "completed"
    assert run["created_at"] <= run["started_at"] <= run["completed_at"]
    assert all(s["created_at"] <= s["completed_at"] for s in await caller.steps(run))
