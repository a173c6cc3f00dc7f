"""Transactions on PostgreSQL: done once, whatever breaks, and refused in our words."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from psycopg import errors

from openai_runs.server.api_errors import OutcomeUnknown, StoreUnavailable
from openai_runs.server.objects.builders import build_assistant, build_thread
from openai_runs.server.store import Change, Store, open_store, operations, rows, runs
from openai_runs.server.store.postgres import database
from openai_runs.server.store.postgres.database import PostgresDatabase
from openai_runs.server.store.postgres.session import Session
from openai_runs.server.store.transaction import Transaction
from openai_runs.types.assistants import CreateAssistant
from openai_runs.types.threads import CreateThread, Thread
from tests.databases import execute
from tests.server.store.postgres.proxying import PostgresProxy

NOW = 1_800_000_000


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresDatabase]:
    """Open the database."""
    changes: list[Change] = []
    loop = asyncio.get_running_loop()
    made = await anyio.to_thread.run_sync(PostgresDatabase, url, changes.append, loop)
    try:
        yield made
    finally:
        await made.aclose()


class Adding:
    """Work that adds a thread, and counts how often it was done."""

    def __init__(self) -> None:
        self.thread = build_thread(CreateThread(), NOW)
        self.times = 0

    def __call__(self, tx: Transaction) -> str:
        """Add it."""
        self.times += 1
        rows.add(tx.connection, self.thread)
        return self.thread.id


def threads(url: str) -> list[str]:
    """Return the ids of all threads."""
    return [found for (found,) in execute(url, "SELECT id FROM threads ORDER BY seq")]


@pytest.mark.parametrize(
    ("statement", "answered", "times"),
    [
        ("INSERT INTO threads", False, 2),
        ("INSERT INTO threads", True, 2),
        ("pg_notify", True, 2),
        ("COMMIT", False, 2),
        ("COMMIT", True, 1),
    ],
    ids=["before the write", "after it", "after all", "before the commit", "after the commit"],
)
async def test_work_is_done_once_when_the_connection_breaks(
    *, proxy: PostgresProxy, postgres_db: str, statement: str, answered: bool, times: int
) -> None:
    """A commit without an answer is asked for: it is repeated only where it was not done."""
    work = Adding()
    async with opened(proxy.url) as opened_database:
        proxy.cut_at(statement, answered=answered)
        assert await opened_database.write(work) == work.thread.id

    assert proxy.cuts == 1
    assert threads(postgres_db) == [work.thread.id]
    assert work.times == times


async def test_read_is_done_again_when_the_connection_breaks(
    proxy: PostgresProxy, postgres_db: str
) -> None:
    """Nobody notices."""
    work = Adding()
    async with opened(proxy.url) as opened_database:
        await opened_database.write(work)
        for statement in ("BEGIN", "SELECT threads", "COMMIT"):
            proxy.cut_at(statement, answered=True)
            found = await opened_database.read(
                lambda connection: rows.find(connection, Thread, work.thread.id)
            )
            assert found.id == work.thread.id

    assert proxy.cuts == 3


async def test_work_is_done_on_another_connection_when_the_server_of_one_never_answers(
    proxy: PostgresProxy, postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy whose server is gone, where a new one is within reach."""
    monkeypatch.setattr(Session, "silence", 0.2)
    first, second = Adding(), Adding()
    async with opened(proxy.url) as opened_database:
        await opened_database.write(first)
        proxy.silence()
        with anyio.fail_after(30):
            await opened_database.write(second)
            await opened_database.read(
                lambda connection: rows.find(connection, Thread, first.thread.id)
            )

    assert sorted(threads(postgres_db)) == sorted([first.thread.id, second.thread.id])


async def test_database_is_closed_while_the_server_never_answers(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work under way has failed then, and a process can end."""
    monkeypatch.setattr(Session, "silence", 0.2)
    async with opened(proxy.url) as opened_database:
        await opened_database.write(Adding())
        proxy.hold()
        with anyio.fail_after(60):
            with pytest.raises(StoreUnavailable):
                await opened_database.write(Adding())
            await opened_database.aclose()


@pytest.mark.parametrize("answered", [False, True])
async def test_outcome_is_unknown_when_the_database_does_not_come_back(
    *,
    proxy: PostgresProxy,
    postgres_db: str,
    answered: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither yes nor no would be the truth: an error that says so, and no blind repetition."""
    monkeypatch.setattr(database, "_RESOLVE_TIME", 0.3)
    work = Adding()
    async with opened(proxy.url) as opened_database:
        proxy.cut_at("COMMIT", answered=answered)
        proxy.refusing_after_cut = True
        with pytest.raises(OutcomeUnknown) as refused:
            await opened_database.write(work)
        proxy.refusing = proxy.refusing_after_cut = False

    assert refused.value.status_code == 500
    assert refused.value.headers["x-should-retry"] == "false"
    assert threads(postgres_db) == ([work.thread.id] if answered else [])
    assert work.times == 1


async def test_database_that_is_away_is_a_503_until_it_is_back(
    proxy: PostgresProxy, postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads and writes wait for a while, then say so; after that all goes on without a restart."""
    monkeypatch.setattr(database, "_PATIENCE", 0.3)
    work = Adding()
    async with opened(proxy.url) as opened_database:
        proxy.refusing = True
        proxy.cut_all()
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as refused:
                await opened_database.write(work)
            assert refused.value.status_code == 503
            with pytest.raises(StoreUnavailable):
                await opened_database.read(lambda connection: connection.execute("SELECT 1"))
            assert "connection" in refused.value.message
        assert threads(postgres_db) == []
        proxy.refusing = False
        monkeypatch.setattr(database, "_PATIENCE", 20)
        await opened_database.write(work)

    assert threads(postgres_db) == [work.thread.id]


async def test_short_absence_is_waited_for(proxy: PostgresProxy, postgres_db: str) -> None:
    """A restart of the database that takes a second is no error for anybody."""
    work = Adding()
    async with opened(proxy.url) as opened_database, anyio.create_task_group() as group:
        proxy.refusing = True
        proxy.cut_all()
        group.start_soon(opened_database.write, work)
        while not proxy.refused:  # noqa: ASYNC110 - nobody announces it
            await anyio.sleep(0.01)
        proxy.refusing = False

    assert threads(postgres_db) == [work.thread.id]


async def test_closed_database_refuses(postgres_db: str) -> None:
    """Who comes too late hears that the server stops."""
    async with opened(postgres_db) as opened_database:
        pass

    with pytest.raises(StoreUnavailable, match="shutting down"):
        await opened_database.write(Adding())
    with pytest.raises(StoreUnavailable, match="shutting down"):
        await opened_database.read(lambda connection: connection.execute("SELECT 1"))


async def test_transactions_that_wait_for_each_other_are_both_done(postgres_db: str) -> None:
    """PostgreSQL ends one of two that wait in a circle, and that one begins again."""
    first, second = Adding(), Adding()
    both = threading.Barrier(2, timeout=30)
    times: list[str] = []

    def crossing(one: str, other: str) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            times.append(one)
            rows.lock(tx.connection, one)
            if len(times) <= 2:
                both.wait()
            rows.lock(tx.connection, other)

        return work

    async with opened(postgres_db) as opened_database:
        await opened_database.write(first)
        await opened_database.write(second)
        ids = (first.thread.id, second.thread.id)
        async with anyio.create_task_group() as group:
            for one, other in (ids, ids[::-1]):
                group.start_soon(opened_database.write, crossing(one, other))

    assert sorted(times) == sorted([*ids, times[-1]])


@pytest.mark.parametrize("kind", [errors.SerializationFailure, errors.DeadlockDetected])
async def test_work_that_meets_another_begins_again(
    postgres_db: str, kind: type[Exception]
) -> None:
    """As often as it takes."""
    work = Adding()

    def meeting(tx: Transaction) -> str:
        if work.times < 5:
            work.times += 1
            raise kind
        return work(tx)

    async with opened(postgres_db) as opened_database:
        await opened_database.write(meeting)

    assert threads(postgres_db) == [work.thread.id]


async def test_conflict_without_an_end_is_an_error(postgres_db: str) -> None:
    """A fault of ours must not hang the server."""
    work = Adding()
    async with opened(postgres_db) as opened_database:
        await opened_database.write(work)
        with pytest.raises(errors.UniqueViolation):
            await opened_database.write(work)
        assert await opened_database.write(Adding())

    assert 2 < work.times < 30


async def test_error_of_the_work_is_handed_on_and_nothing_is_written(postgres_db: str) -> None:
    """Also where it comes after a write, and from a read."""

    def failing(tx: Transaction) -> None:
        rows.add(tx.connection, build_thread(CreateThread(), NOW))
        message = "ours"
        raise ValueError(message)

    def reading(connection: Any) -> None:
        message = "ours too"
        raise ValueError(message)

    async with opened(postgres_db) as opened_database:
        with pytest.raises(ValueError, match="ours"):
            await opened_database.write(failing)
        with pytest.raises(ValueError, match="ours too"):
            await opened_database.read(reading)
        with pytest.raises(errors.UndefinedTable):
            await opened_database.read(lambda c: c.execute("SELECT * FROM nothing"))

    assert threads(postgres_db) == []


async def test_work_goes_on_when_its_caller_is_cancelled(postgres_db: str) -> None:
    """What was sent may be written: nobody knows any better by giving up."""
    begun, go_on = threading.Event(), threading.Event()
    work = Adding()

    def slow(tx: Transaction) -> str:
        begun.set()
        go_on.wait(30)
        return work(tx)

    async with opened(postgres_db) as opened_database:
        async with anyio.create_task_group() as group:
            group.start_soon(opened_database.write, slow)
            await anyio.to_thread.run_sync(begun.wait, 30)
            group.cancel_scope.cancel()
        go_on.set()

    assert threads(postgres_db) == [work.thread.id]


async def store_of(url: str) -> Store:
    """Open a store that hears nothing."""
    return await open_store(url, lambda change: None)


async def test_thread_has_one_active_run_when_many_ask_at_once(postgres_db: str) -> None:
    """Through two processes: exactly one of twenty is made, and the others are refused."""
    from openai_runs.server.api_errors import Refusal
    from openai_runs.server.objects.builders import build_new_run
    from openai_runs.types.runs import CreateRun

    stores = [await store_of(postgres_db) for _ in range(2)]
    assistant = build_assistant(CreateAssistant(model="m"), NOW)
    thread = build_thread(CreateThread(), NOW)
    await stores[0].write(operations.add_assistant, assistant)
    await stores[0].write(runs.add_thread, thread, [])
    made: list[str] = []
    refusals: list[str] = []

    async def create(store: Store) -> None:
        asked = CreateRun(assistant_id=assistant.id)
        try:
            state = await store.write(
                runs.create,
                thread.id,
                assistant.id,
                lambda stored: build_new_run(stored, thread.id, asked, NOW, 600),
            )
        except Refusal as refusal:
            refusals.append(refusal.message)
        else:
            made.append(state.id)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(create, stores[number % 2])
    for store in stores:
        await store.aclose()

    assert len(made) == 1
    assert refusals == [f"Thread {thread.id} already has an active run {made[0]}."] * 19
