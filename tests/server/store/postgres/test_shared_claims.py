"""Claims of several processes: who may claim, what counts, and what of a lost claim is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from openai_runs import AsyncClient
from openai_runs.server import LocalServer
from openai_runs.server.execution.draft import Draft
from openai_runs.server.objects.transitions import Ending
from openai_runs.server.store import Claim, Store, claims, open_store, shared_claims
from openai_runs.server.worker import Worker
from tests.canaries import CANARY_PROMPT
from tests.chaos.reading import check_frames, frames_of
from tests.databases import execute
from tests.e2e.starting import start

NOW = 1_800_000_000
SILENCE = 10


@pytest.fixture
async def store(postgres_db: str) -> AsyncIterator[Store]:
    """The database, with one queued run."""
    async with (
        LocalServer(postgres_db, executes=False, run_lifetime=10**9) as server,
        AsyncClient(server.url) as client,
    ):
        await start(client)
    opened = await open_store(postgres_db, lambda change: None)
    yield opened
    await opened.aclose()


async def claimed_by(store: Store, worker: str) -> list[Claim]:
    """Return what this process claims of what is queued."""
    return await store.write(
        shared_claims.claim_queued, worker, NOW, 16, silence=SILENCE, without=frozenset()
    )


async def taken_by(store: Store, worker: str, run_id: str) -> Claim:
    """Return the claim of this process, which takes the run over."""
    claim = await store.write(shared_claims.take_over, worker, run_id, NOW, SILENCE)
    assert claim is not None
    return claim


async def test_process_claims_nothing_before_it_has_reported(
    store: Store, postgres_db: str
) -> None:
    """Neither at its start nor when it comes back: others would take over what it claims."""
    at_start = await claimed_by(store, "a")
    await store.write(shared_claims.report_alive, "a", 600)
    execute(postgres_db, "UPDATE workers SET seen_at = seen_at - 11")
    when_back = await claimed_by(store, "a")
    await store.write(shared_claims.report_alive, "a", 600)

    assert (at_start, when_back) == ([], [])
    assert len(await claimed_by(store, "a")) == 1


async def test_only_what_another_process_left_counts_as_an_attempt(
    store: Store, postgres_db: str
) -> None:
    """A process that finds its own claim, whose commit had no answer, has not crashed."""
    await store.write(shared_claims.report_alive, "a", 600)
    (claim,) = await claimed_by(store, "a")

    counts: list[Any] = []
    for worker in ("a", "b", "b"):
        execute(postgres_db, "DELETE FROM workers")
        await taken_by(store, worker, claim.run.id)
        counts += execute(postgres_db, "SELECT attempts, epoch FROM runs")

    assert counts == [(0, 2), (1, 3), (1, 4)]


@pytest.mark.parametrize("status", ["queued", "in_progress"])
async def test_damaged_run_keeps_no_other_from_being_executed(
    store: Store, postgres_db: str, status: str
) -> None:
    """Neither one that waits, nor one that a process left behind."""
    change = "UPDATE runs SET body = '{', status = ?, worker = 'gone'"
    execute(postgres_db, change, status)

    async with (
        LocalServer(postgres_db, executes=False, run_lifetime=10**9) as server,
        AsyncClient(server.url) as client,
    ):
        fine = await start(client)
        execute(
            postgres_db, "UPDATE runs SET status = ?, worker = 'gone' WHERE id = ?", status, fine.id
        )
        async with Worker(postgres_db):
            ended = await client.runs.wait(fine, timeout=60)

    assert ended.status == "completed"


async def test_who_ends_a_run_stores_nothing_of_an_execution_that_lost_it(
    store: Store, postgres_db: str
) -> None:
    """The text is that of the execution which has the run, and so are the events."""
    await store.write(shared_claims.report_alive, "a", 600)
    (lost,) = await claimed_by(store, "a")
    execute(postgres_db, "DELETE FROM workers")
    held = await taken_by(store, "b", lost.run.id)
    mine, theirs = (Draft(lost.run, lambda: NOW, message_id=None, step_id=None) for _ in range(2))
    mine.add_text("Mine.")
    theirs.add_text("Theirs.")
    await store.write(claims.write, held.run, held.epoch, theirs.pop_writings(), NOW)

    await store.write(
        claims.end,
        lost.run.id,
        Ending(status="expired", text="Mine."),
        NOW,
        writings=mine.pop_writings(),
        written_in=lost.epoch,
    )

    kept = execute(postgres_db, "SELECT body::json -> 'content' FROM messages ORDER BY seq")
    texts = [content[0]["text"]["value"] for (content,) in kept]
    rows = execute(postgres_db, "SELECT body FROM events ORDER BY last")
    frames = frames_of(b"".join(body for (body,) in rows))
    assert texts == [CANARY_PROMPT, "Theirs."]
    assert check_frames(frames, first=1) == []
    assert frames[-1].name == "thread.run.expired"
    assert "Mine" not in str(frames)
