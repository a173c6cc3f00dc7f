"""A database made ready: by one of many processes, or refused with a plain sentence."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from psycopg import conninfo

from openai_runs.errors import ConfigError
from openai_runs.server import LocalServer
from openai_runs.server.store.migrations import MIGRATIONS, SCHEMA_VERSION, Migration
from openai_runs.server.store.postgres import opening
from openai_runs.server.store.postgres.connection import connect, connection_options
from tests.databases import execute
from tests.postgres import changed_url

ROOT = Path(__file__).resolve().parents[4]
OPENS = """
import asyncio, sys
from openai_runs.server import LocalServer

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with LocalServer(sys.argv[1]):
        print("open", flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""
"""A process that opens the database at one line of input, and closes it at another."""


def tables(db: str) -> set[str]:
    """Return the names of all tables."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return {name for (name,) in execute(db, query)}


def version(db: str) -> int:
    """Return the schema version."""
    ((found,),) = execute(db, "SELECT version FROM openai_runs_schema")
    return int(found)


def in_turn(processes: list[subprocess.Popen[str]], word: str) -> list[str]:
    """Have all go on at once; return what each says."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [said for process in processes if (said := _line(process)) != word]


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_schema_is_made_when_twenty_processes_start_at_once(new_postgres_db: str) -> None:
    """On an empty database: the first one makes the tables, and none is refused."""
    command = [sys.executable, "-c", OPENS, new_postgres_db]
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, **options) for _ in range(20)
    ]
    try:
        assert [_line(process) for process in processes] == ["ready"] * 20
        failed = in_turn(processes, "open")
        errors = [process.communicate("\n", timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    assert failed == []
    assert "Error" not in "".join(errors).replace("CancelledError", "")
    assert [process.returncode for process in processes] == [0] * 20
    assert execute(new_postgres_db, "SELECT * FROM openai_runs_schema") == [(SCHEMA_VERSION,)]
    assert {"runs", "events", "procrastinate_jobs"} <= tables(new_postgres_db)


async def refused(url: str) -> str:
    """Return the sentence by which a server refuses to start, which leaves no thread behind."""
    before = {each for each in threading.enumerate() if each.name.startswith("openai_runs.l")}
    with pytest.raises(ConfigError) as error:
        await LocalServer(url).start()
    after = {each for each in threading.enumerate() if each.name.startswith("openai_runs.l")}
    assert after <= before
    return str(error.value)


async def test_schema_of_a_newer_version_is_refused(new_postgres_db: str) -> None:
    """The sentence says what to do about it, and nothing is changed."""
    async with LocalServer(new_postgres_db):
        pass
    execute(new_postgres_db, "UPDATE openai_runs_schema SET version = 99")

    assert "schema version 99" in await refused(new_postgres_db)
    assert version(new_postgres_db) == 99


async def test_tables_of_another_program_are_left_alone(new_postgres_db: str) -> None:
    """A table of one of our names is enough; the sentence says two ways out."""
    execute(new_postgres_db, "CREATE TABLE threads (name text)")

    sentence = await refused(new_postgres_db)

    assert "has a table 'threads' of another program" in sentence
    assert "search_path" in sentence
    assert tables(new_postgres_db) == {"threads"}


async def test_schema_of_its_own_may_be_named_in_the_url(new_postgres_db: str) -> None:
    """Two servers share a database, and do not see each other's threads."""
    execute(new_postgres_db, "CREATE TABLE threads (name text)")
    execute(new_postgres_db, "CREATE SCHEMA ours")

    async with LocalServer(f"{new_postgres_db}&options=-csearch_path%3Dours"):
        pass

    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'ours'"
    assert ("openai_runs_schema",) in execute(new_postgres_db, query)
    assert execute(new_postgres_db, "SELECT * FROM threads") == []


WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE '%pg_try_advisory%' AND pid <> pg_backend_pid()
AND clock_timestamp() - xact_start > INTERVAL '0.2 s'
"""


@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_process_waits_for_who_upgrades_however_long_that_takes(
    postgres_db: str, limit: str
) -> None:
    """The limits of a session are for statements, which are short."""
    url = changed_url(postgres_db, options=f"-c{limit}=50")

    def prepared() -> None:
        with connect(connection_options(url)) as raw:
            opening.prepare(raw, url)

    with ThreadPoolExecutor(1) as threads, psycopg.connect(postgres_db) as upgrading:
        upgrading.execute("SELECT pg_advisory_xact_lock(%s)", (opening._LOCK,))
        waiting = threads.submit(prepared)
        while not waiting.done() and execute(postgres_db, WAITING) == [(0,)]:
            pass
        assert not waiting.done()
        upgrading.rollback()
        waiting.result(timeout=30)


async def test_process_that_waits_for_who_upgrades_can_be_stopped(postgres_db: str) -> None:
    """A signal ends its start, and leaves no transaction behind."""
    with psycopg.connect(postgres_db) as upgrading:
        upgrading.execute("SELECT pg_advisory_xact_lock(%s)", (opening._LOCK,))
        async with anyio.create_task_group() as group:
            group.start_soon(LocalServer(postgres_db).start)
            with anyio.fail_after(30):
                while execute(postgres_db, WAITING) == [(0,)]:  # noqa: ASYNC110 - no event
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()

        assert execute(postgres_db, WAITING) == [(0,)]


@pytest.mark.parametrize("seconds", [0, 60, -60])
def test_clock_that_differs_from_the_databases_is_warned_of(
    postgres_db: str,
    seconds: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that is ahead lets the runs of all processes expire early."""
    now = time.time
    with connect(connection_options(postgres_db)) as raw, monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now() + seconds)
        opening.prepare(raw, postgres_db)

    warned = f"the clock of this machine is {seconds:+d} s from that of database"
    assert (warned in caplog.text) == bool(seconds)


async def test_database_is_upgraded_once(
    new_postgres_db: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the steps after its version, in one transaction with the version itself."""
    caplog.set_level("INFO")
    async with LocalServer(new_postgres_db):
        pass
    done: list[int] = []

    def step(number: int) -> Migration:
        return Migration(number, lambda connection: done.append(number))

    monkeypatch.setattr(opening, "SCHEMA_VERSION", SCHEMA_VERSION + 2)
    added = tuple(step(number) for number in range(2, SCHEMA_VERSION + 3))
    monkeypatch.setattr(opening, "MIGRATIONS", added)
    for _ in range(2):
        async with LocalServer(new_postgres_db):
            pass

    assert done == [SCHEMA_VERSION + 1, SCHEMA_VERSION + 2]
    assert version(new_postgres_db) == SCHEMA_VERSION + 2
    assert f"from schema version {SCHEMA_VERSION} to {SCHEMA_VERSION + 2}" in caplog.text


async def test_upgrade_that_fails_leaves_the_database_as_it_was(
    new_postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL takes back changes of tables too."""
    async with LocalServer(new_postgres_db):
        pass

    def halfway(connection: Any) -> None:
        connection.execute("ALTER TABLE runs ADD COLUMN half text")
        connection.execute("SELECT * FROM no_such_table")

    monkeypatch.setattr(opening, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr(opening, "MIGRATIONS", (Migration(SCHEMA_VERSION + 1, halfway),))

    assert "no_such_table" in await refused(new_postgres_db)
    query = "SELECT 1 FROM information_schema.columns WHERE column_name = 'half'"
    assert execute(new_postgres_db, query) == []
    assert version(new_postgres_db) == SCHEMA_VERSION


def test_schema_of_today_is_the_last_migration() -> None:
    """A new database and an upgraded one are the same."""
    assert MIGRATIONS[-1].version == SCHEMA_VERSION


ASIDE: dict[str, tuple[dict[str, str], str]] = {
    "no such database": ({"dbname": "nowhere"}, "create the database first"),
    "no such user": ({"user": "nobody-here"}, "check the user"),
    "no such socket": ({"host": "/nowhere"}, "is PostgreSQL running there"),
    "nobody listens": ({"host": "127.0.0.1", "port": "1"}, "is PostgreSQL running there"),
    "unknown setting": ({"options": "-cnonsense=1"}, "PostgreSQL's log"),
}


@pytest.mark.parametrize(("changes", "advice"), ASIDE.values(), ids=ASIDE)
async def test_database_that_cannot_be_reached_is_refused(
    postgres_db: str,
    changes: dict[str, str],
    advice: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The sentence says where it was looked for and what to do; the password is nowhere."""
    caplog.set_level("DEBUG")
    sentence = await refused(changed_url(postgres_db, password="s3cr3t", **changes))

    assert sentence.startswith("cannot use database postgresql://")
    assert advice in sentence
    assert "s3cr3t" not in sentence + caplog.text


async def test_user_without_rights_is_refused(new_postgres_db: str) -> None:
    """Tables cannot be made: the sentence says so."""
    known = conninfo.conninfo_to_dict(new_postgres_db)
    role = f"{known['dbname']}_role"
    execute(new_postgres_db, f"CREATE ROLE {role} LOGIN PASSWORD 's3cr3t'")
    try:
        sentence = await refused(changed_url(new_postgres_db, user=role, password="s3cr3t"))
    finally:
        execute(new_postgres_db, f"DROP ROLE {role}")

    assert "permission denied" in sentence
    assert "rights to create tables" in sentence
    assert "s3cr3t" not in sentence


async def test_database_of_another_encoding_is_refused(postgres_url: str) -> None:
    """Half of the characters could not be stored."""
    name = f"latin_{threading.get_native_id()}"
    make = f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    execute(postgres_url, make)
    try:
        sentence = await refused(changed_url(postgres_url, dbname=name))
    finally:
        execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")

    assert "encoding LATIN1: create one with ENCODING 'UTF8'" in sentence


def test_server_of_an_old_version_is_refused(
    new_postgres_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no longer kept up is not tested by us."""
    with psycopg.connect(new_postgres_db, autocommit=True) as raw:
        monkeypatch.setattr(opening, "_OLDEST_SERVER", raw.info.server_version + 10000)
        with pytest.raises(ConfigError, match=r"is PostgreSQL \d+; at least \d+ is needed"):
            opening.prepare(raw, new_postgres_db)
