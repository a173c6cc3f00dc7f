"""Commits whose answer is lost, where PostgreSQL itself crashes: what was not kept is written."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import psycopg
import pytest

from openai_runs.server.objects.builders import new_id
from openai_runs.server.store import open_store, rows, runs
from openai_runs.types.threads import Thread
from tests.chaos.cluster import Cluster
from tests.server.store.postgres.proxying import proxied


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that may crash, and writes nothing to its log before a commit needs it."""
    with tempfile.TemporaryDirectory(prefix="openai-runs-") as folder:
        made = Cluster(Path(folder, "postgres"), wal_writer_delay="10s", autovacuum="off")
        made.start()
        try:
            yield made
        finally:
            made.remove()


def next_number(url: str) -> int:
    """Return the number of a transaction, which is then committed."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        return int(row[0])


async def test_commit_that_a_crash_undid_is_done_again_where_its_number_is_used_by_another(
    cluster: Cluster,
) -> None:
    """After a crash numbers of transactions come again: another's commit is not taken for ours."""
    thread = Thread(id=new_id("thread"), created_at=1, metadata={})
    with proxied(cluster.url()) as proxy:
        store = await open_store(proxy.url, lambda change: None)
        try:
            before = await asyncio.to_thread(next_number, cluster.url())
            proxy.cut_at("COMMIT", answered=False)
            proxy.refusing = True
            async with anyio.create_task_group() as group:
                group.start_soon(store.write, runs.add_thread, thread, [])
                while not proxy.cuts:  # noqa: ASYNC110 - nobody announces that
                    await anyio.sleep(0.01)
                await asyncio.to_thread(cluster.stop, "immediate")
                await asyncio.to_thread(cluster.start)
                while await asyncio.to_thread(next_number, cluster.url()) <= before + 5:
                    pass
                proxy.refusing = False
            kept = await store.read(rows.find, Thread, thread.id)
        finally:
            await store.aclose()

    assert kept == thread
