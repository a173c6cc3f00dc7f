"""A PostgreSQL of this module's own, which is stopped, started again, and asks for passwords."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import pytest

from openai_runs.errors import ConfigError
from openai_runs.server import LocalServer, Say, ScriptedBackend
from tests import postgres
from tests.databases import execute
from tests.postgres import changed_url
from tests.server.http.test_sse_response import rest_of, start_and_read
from tests.server.support import Caller, told_text

WORDS = [f"word {number} " for number in range(100)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the server is; its path is short enough for a socket."""
    made = Path(tempfile.gettempdir(), f"openai-runs-own-{os.getpid()}")
    yield made
    postgres.stop_server(made)


@pytest.fixture
def own(folder: Path) -> str:
    """The URL of a database there."""
    return postgres.running(folder)


async def test_password_is_in_no_message_and_no_log(
    own: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong one is refused with what to check; a right one is used, and never said."""
    caplog.set_level("DEBUG")
    execute(own, "CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'r1ghts3cr3t'")
    rules = folder / "pg_hba.conf"
    rules.write_text(f"local all locked scram-sha-256\n{rules.read_text()}")
    execute(own, "SELECT pg_reload_conf()")

    wrong = changed_url(own, user="locked", password="wr0ngs3cr3t")
    with pytest.raises(ConfigError) as refused:
        await LocalServer(wrong).start()
    async with LocalServer(changed_url(own, user="locked", password="r1ghts3cr3t")) as server:
        shown = repr(server)

    assert "password authentication failed" in str(refused.value)
    assert "check the user and the password" in str(refused.value)
    said = "".join((str(refused.value), repr(refused.value.__cause__), caplog.text, shown))
    assert "s3cr3t" not in said


async def test_run_and_its_reader_outlive_a_restart_of_the_database(own: str, folder: Path) -> None:
    """What was written is there, what is written meanwhile waits, and nothing comes twice."""
    backend = ScriptedBackend([Say(WORDS, pause=0.02)])
    async with LocalServer(own, backend) as server, aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        response, before = await start_and_read(caller, "word 3")
        await anyio.to_thread.run_sync(postgres.halt, folder)
        await anyio.to_thread.run_sync(postgres.running, folder)
        with anyio.fail_after(60):
            after = await rest_of(response)
            if not after.done:  # it was ended, and is resumed as a client does
                last = [*before, *after.events][-1]
                after = await caller.replay(before[0].data, last.id)
                before = [event for event in before if event.id != last.id] + [last]
        whole = await caller.replay(before[0].data)

    assert told_text(whole.events) == "".join(WORDS)
    assert whole.names[-1] == "run.completed"
    assert after.names[-1] == "run.completed"


async def test_server_whose_database_is_away_is_unready_and_alive(own: str, folder: Path) -> None:
    """A balancer sends requests elsewhere, and nobody kills the process."""
    async with LocalServer(own) as server, aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        await anyio.to_thread.run_sync(postgres.halt, folder)
        ready, health = await caller.ready(), await caller.health()
        refused = await caller.send("POST", "/threads", json={})
        await anyio.to_thread.run_sync(postgres.running, folder)
        with anyio.fail_after(60):
            while (await caller.ready()).status != 200:  # noqa: ASYNC110 - nobody announces it
                await anyio.sleep(0.1)
        made = await caller.send("POST", "/threads", json={})

    assert (ready.status, health.status) == (503, 200)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.json["error"]["code"] == "store_unavailable"
    assert made.status == 200
