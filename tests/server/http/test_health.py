"""`/healthz` is answered from memory, `/readyz` by one look at the database a second."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

from openai_runs.config import READINESS_TTL
from openai_runs.server import EchoBackend, Hang
from openai_runs.server.events.change_bus import ChangeBus
from openai_runs.server.events.subscribers import Subscribers
from openai_runs.server.execution.engine import Engine
from openai_runs.server.http.health import Health
from openai_runs.server.store import open_store
from tests.canaries import CANARY_KEY
from tests.databases import Database, execute
from tests.server.conftest import Serve
from tests.server.support import ManualClock

NAMES = {"sqlite": "SQLite 3.", "postgresql": "PostgreSQL "}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The database of the server, opened beside it."""
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as connection:
        yield connection


class Probed(NamedTuple):
    """The pages of a store, and what they work with."""

    health: Health
    engine: Engine
    clock: ManualClock
    """What is written to the database."""
    now: list[float]
    """Seconds by which a result is shared."""


def version(file: sqlite3.Connection) -> int:
    """Return a number that changes with every write of another connection."""
    return int(file.execute("PRAGMA data_version").fetchone()[0])


async def test_pages_need_no_key(serve: Serve, database: Database) -> None:
    """They are for load balancers, outside of the API."""
    caller = await serve(api_key=CANARY_KEY)

    health, ready = await caller.health(), await caller.ready()

    assert (health.status, health.json) == (200, {"status": "ok"})
    assert (ready.status, ready.json["status"]) == (200, "ok")
    assert ready.json["queued"] == ready.json["in_progress"] == ready.json["failed"] == 0
    assert ready.json["database"].startswith(NAMES[database.kind])


@pytest.mark.sqlite("counts what is written to the file")
async def test_health_touches_no_disk(serve: Serve, file: sqlite3.Connection) -> None:
    """A stranger cannot make the server write."""
    caller = await serve()
    before = version(file)

    for _ in range(50):
        assert (await caller.health()).status == 200

    assert version(file) == before


@pytest.mark.sqlite("about a lock of the file")
async def test_health_is_answered_while_the_database_is_locked(
    serve: Serve, file: sqlite3.Connection
) -> None:
    """A process that is alive is not started anew because of a backup."""
    caller = await serve()
    file.execute("BEGIN IMMEDIATE")
    try:
        reply = await caller.health()
    finally:
        file.execute("ROLLBACK")

    assert reply.status == 200


async def test_readiness_counts_what_is_active(serve: Serve) -> None:
    """Operators see from outside how much waits."""
    caller = await serve(Hang(), max_concurrent_runs=1)
    first, second = await caller.start(), await caller.start()

    await caller.reaches(first, "in_progress")
    facts = (await caller.ready()).json

    assert (facts["queued"], facts["in_progress"]) == (1, 1)
    assert facts["oldest_seconds"] >= 0
    assert second["status"] == "queued"


@pytest.fixture
async def probed(tmp_path: Path, file: sqlite3.Connection) -> AsyncIterator[Probed]:
    """Pages of a store that no server has open."""
    clock, now = ManualClock(), [100.0]
    bus = ChangeBus(1)
    store = await open_store(tmp_path / "runs.db", bus.publish)
    engine = Engine(store, EchoBackend(), clock, Subscribers(1), max_concurrent_runs=1)
    try:
        await engine.start()
        yield Probed(Health(engine, store, clock, lambda: now[0]), engine, clock, now)
        await engine.aclose()
    finally:
        await store.aclose()


def written_at(file: sqlite3.Connection) -> float:
    """Return the time of the last look at the database."""
    return float(file.execute("SELECT at FROM probe").fetchone()[0])


async def test_readiness_is_looked_at_once_a_second(
    probed: Probed, file: sqlite3.Connection
) -> None:
    """Whoever asks within the second gets what was found; a clock set back ends it."""
    health, _, clock, now = probed
    looked = []

    for moment in (100.0, 100.0 + READINESS_TTL / 2, 100.0 + READINESS_TTL, 50.0):
        now[0] = moment
        clock.advance(10)
        assert (await health.ready()).status_code == 200
        looked.append(written_at(file))

    start = looked[0]
    assert looked == [start, start, start + 20, start + 30]


async def test_readiness_is_looked_at_once_for_all_who_ask_together(
    probed: Probed, file: sqlite3.Connection
) -> None:
    """A thousand callers are one write, also where the first of them leaves."""
    health = probed.health
    versions = [version(file)]
    answers = []

    async def ask() -> None:
        answers.append((await health.ready()).status_code)
        versions.append(version(file))

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as leaving:
            leaving.cancel()
            await ask()
        for _ in range(1000):
            group.start_soon(ask)

    assert answers == [200] * 1000
    assert len(set(versions)) <= 2


async def test_readiness_of_a_database_that_fails_is_a_503_in_our_words(
    serve: Serve, tmp_path: Path, database: Database
) -> None:
    """Whatever fails, no word of it is sent; the process is alive all the same."""
    caller = await serve()
    execute(database(tmp_path / "runs.db"), "DROP TABLE probe")

    ready, health = await caller.ready(), await caller.health()

    assert (ready.status, ready.json["status"]) == (503, "unavailable")
    assert ready.json.keys() == {"status", "reason"}
    assert "probe" not in ready.text
    assert health.status == 200


@pytest.mark.parametrize("body", ["no json", "{", '{"created_at": "x"}', "[]", "null", ""])
async def test_one_damaged_row_does_not_make_the_server_unready(
    serve: Serve, tmp_path: Path, database: Database, body: str
) -> None:
    """The oldest run cannot be read: all others can."""
    caller = await serve(Hang())
    await caller.reaches(await caller.start(), "in_progress")
    execute(database(tmp_path / "runs.db"), "UPDATE runs SET body = ?", body)

    reply = await caller.ready()

    assert (reply.status, reply.json["in_progress"], reply.json["oldest_seconds"]) == (200, 1, 0)


async def test_server_that_stops_is_alive_and_not_ready(
    probed: Probed,
) -> None:
    """A load balancer sends no more, and nobody kills it before it is done."""
    health = probed.health

    await probed.engine.drain(0)

    assert health.live().status_code == 200
    ready = await health.ready()
    assert (ready.status_code, b'"stopping"' in ready.body) == (503, True)
