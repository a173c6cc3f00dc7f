"""The queue of jobs: it ends with its server, and a database that is away is only noted."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from openai_runs.server import LocalServer, ScriptedBackend
from openai_runs.server.store.postgres.jobs import QUEUE, TASK
from openai_runs.server.store.postgres.session import AsyncSession, Session
from tests.databases import execute
from tests.server.store.postgres.proxying import PostgresProxy
from tests.server.support import Caller


@pytest.mark.parametrize("turns", [0, 3, 30, 300])
async def test_server_that_stops_leaves_no_task_behind(
    postgres_db: str, turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Whenever it stops: while the queue opens its connections, or once it waits for jobs."""
    caplog.set_level(logging.WARNING)
    before = asyncio.all_tasks()

    async with LocalServer(postgres_db):
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()

    assert asyncio.all_tasks() == before
    assert "closing connection" not in caplog.text
    assert execute(postgres_db, "SELECT count(*) FROM procrastinate_workers") == [(0,)]


async def test_queue_is_served_again_when_the_database_is_back(
    proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says that it was away; runs are executed all the same."""
    caplog.set_level(logging.WARNING)
    server = LocalServer(proxy.url, ScriptedBackend(["Before.", "After."]))
    async with server, aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        await caller.settled(await caller.start())
        proxy.refusing = True
        proxy.cut_all()
        while proxy.refused < 3:  # noqa: ASYNC110 - nobody announces it
            await anyio.sleep(0.01)
        proxy.refusing = False
        run = await caller.settled(await caller.start())

    assert run["status"] == "completed"


async def test_queue_is_served_again_when_the_server_of_its_connections_never_answers(
    proxy: PostgresProxy, postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy whose server is gone: others are opened, to the new one."""
    server = LocalServer(proxy.url, ScriptedBackend(["Before."]))
    async with server, aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        await caller.settled(await caller.start())
        proxy.silence()
        for kind in (Session, AsyncSession):
            monkeypatch.setattr(kind, "silence", 0.2)
        job = f"INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES ('{QUEUE}', '{TASK}')"
        await anyio.to_thread.run_sync(execute, postgres_db, job)
        with anyio.fail_after(30):
            while execute(postgres_db, "SELECT FROM procrastinate_jobs"):  # noqa: ASYNC110
                await anyio.sleep(0.05)


async def test_queue_ends_while_the_database_is_away(proxy: PostgresProxy) -> None:
    """With its server, in seconds."""
    async with LocalServer(proxy.url):
        proxy.refusing = True
        proxy.cut_all()
        while not proxy.refused:  # noqa: ASYNC110 - nobody announces it
            await anyio.sleep(0.01)

    left = {task.get_name() for task in asyncio.all_tasks()}
    assert not any(name.startswith("openai_runs.jobs") for name in left)
