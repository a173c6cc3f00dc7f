"""The file: durable, locked, and refused with a plain sentence when it cannot be used."""

from __future__ import annotations

import os
import resource
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import aiohttp
import anyio
import pytest

from openai_runs.errors import ConfigError
from openai_runs.server import Hang, LocalServer, serving_url
from openai_runs.server.store.sqlite.connection import open_reader, open_writer
from tests.server.conftest import Serve
from tests.server.dooming import doomed
from tests.server.support import Caller

pytestmark = pytest.mark.sqlite("about the file")


def test_writer_is_durable_and_readers_cannot_write(tmp_path: Path) -> None:
    """WAL and FULL, so that an answered 200 survives a loss of power; foreign keys hold."""
    writer, reader = open_writer(tmp_path / "a.db"), open_reader(tmp_path / "a.db")

    def pragma(connection: sqlite3.Connection, name: str) -> object:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma(writer, "journal_mode") == "wal"
    assert pragma(writer, "synchronous") == 2  # FULL
    assert pragma(writer, "foreign_keys") == 1
    assert pragma(writer, "busy_timeout") == 5000
    assert pragma(reader, "query_only") == 1
    assert pragma(reader, "busy_timeout") == 5000
    writer.close()
    reader.close()


async def test_database_keeps_one_active_run_itself(serve: Serve, tmp_path: Path) -> None:
    """Even a write that asked nobody is refused by the index."""
    caller = await serve(Hang(), db=tmp_path / "i.db")
    await caller.start()

    def duplicate() -> None:
        with closing(sqlite3.connect(tmp_path / "i.db")) as file, file:
            file.execute(
                "INSERT INTO runs (id, thread_id, status, deadline, epoch, attempts, "
                "prompt_tokens, completion_tokens, body) "
                "SELECT 'run_2', thread_id, 'queued', 0, 0, 0, 0, 0, '{}' FROM runs"
            )

    with pytest.raises(sqlite3.IntegrityError, match="runs.thread_id"):
        await anyio.to_thread.run_sync(duplicate)


async def test_second_server_on_a_file_is_refused_with_its_address(tmp_path: Path) -> None:
    """The sentence names the file, the process and where to find it."""
    async with LocalServer(tmp_path / "l.db") as first:
        with pytest.raises(ConfigError) as refused:
            await LocalServer(tmp_path / "l.db").start()

        sentence = str(refused.value)
        assert str(tmp_path / "l.db") in sentence
        assert str(os.getpid()) in sentence
        assert first.url in sentence
    async with LocalServer(tmp_path / "l.db") as again:
        assert again.url


@pytest.mark.timeout(60)
async def test_address_is_found_by_other_processes_while_it_is_served(tmp_path: Path) -> None:
    """Through a symbolic link too, and no longer when the server is gone or was killed."""
    db, link = tmp_path / "u.db", tmp_path / "link.db"

    async def found(path: Path) -> str | None:
        return await anyio.to_thread.run_sync(serving_url, path)

    assert await found(db) is None
    async with LocalServer(db) as server:
        link.symlink_to(db)
        assert await found(db) == server.url
        assert await found(link) == server.url
    assert await found(db) is None
    async with doomed(db) as killed:
        assert await found(db) == killed.caller.url
    assert await found(db) is None


async def test_file_with_two_names_is_refused(tmp_path: Path) -> None:
    """The lock goes by the name, and so does SQLite's log; a symbolic link is no second name."""
    db, link = tmp_path / "one.db", tmp_path / "two.db"
    async with LocalServer(db):
        link.hardlink_to(db)
        with pytest.raises(ConfigError, match=r"two\.db' has 2 names \(hard links\)"):
            await LocalServer(link).start()
    with pytest.raises(ConfigError, match="2 names"):
        await LocalServer(db).start()

    link.unlink()
    async with LocalServer(db) as again:
        assert again.url


async def test_server_that_is_looked_for_while_it_starts_is_found(tmp_path: Path) -> None:
    """Whoever looks takes the lock for a moment, and the starting server bears with it."""
    db = tmp_path / "s.db"
    found: list[str | None] = []

    def look() -> None:
        found.extend(serving_url(db) for _ in range(200))

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, look)
        async with LocalServer(db) as server:
            url = server.url

    assert set(found) <= {None, url}


REFUSED = {
    "no-database": (b"this is a letter, not a database" * 200, "not a database"),
    "torn-header": (b"SQLite format 3\x00" + b"\xff" * 4096, "cannot use database"),
}


@pytest.mark.parametrize(("content", "words"), REFUSED.values(), ids=REFUSED)
async def test_file_that_is_no_database_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    """Nothing is written to it, and the lock is given back."""
    db = tmp_path / "x.db"
    db.write_bytes(content)

    for _ in range(2):
        with pytest.raises(ConfigError, match=words):
            await LocalServer(db).start()

    assert db.read_bytes() == content


async def test_damaged_file_is_refused(tmp_path: Path, serve: Serve) -> None:
    """Garbage in the middle is found before anything is served."""
    db = tmp_path / "d.db"
    async with LocalServer(db) as server, aiohttp.ClientSession() as session:
        caller = Caller(session, server.url)
        for _ in range(50):
            await caller.thread("x" * 1000)
    content = bytearray(db.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8192] = b"\xa5" * 8192
    db.write_bytes(content)

    with pytest.raises(ConfigError, match="damaged|cannot use"):
        await LocalServer(db).start()


async def test_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """The sentence says what to do about it."""
    db = tmp_path / "n.db"
    async with LocalServer(db):
        pass
    with sqlite3.connect(db) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()

    with pytest.raises(ConfigError, match="schema version 99.*install a newer one"):
        await LocalServer(db).start()


async def test_file_of_another_program_is_refused(tmp_path: Path) -> None:
    """A database with other tables is left alone."""
    db = tmp_path / "o.db"
    with sqlite3.connect(db) as file:
        file.execute("CREATE TABLE recipes (name)")
    file.close()

    with pytest.raises(ConfigError, match="belongs to another program"):
        await LocalServer(db).start()


async def test_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """The sentence names what is there."""
    with pytest.raises(ConfigError, match="cannot use database.*is a directory"):
        await LocalServer(tmp_path).start()


async def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A wrong path is a plain sentence, not a traceback of SQLite's."""
    with pytest.raises(ConfigError, match="cannot lock database"):
        await LocalServer(tmp_path / "nowhere" / "x.db").start()


@pytest.mark.timeout(60)
async def test_locked_file_is_a_503_until_it_is_free(serve: Serve, tmp_path: Path) -> None:
    """Another program writes for long: try again later; reading goes on."""
    caller = await serve(db=tmp_path / "b.db")
    assistant_id = await caller.assistant()
    other = sqlite3.connect(tmp_path / "b.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    read = await caller.send("GET", f"/assistants/{assistant_id}")
    refused = await caller.send("POST", "/threads", json={})
    other.execute("ROLLBACK")
    other.close()
    taken = await caller.send("POST", "/threads", json={})

    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "database is locked" in refused.message
    assert (read.status, taken.status) == (200, 200)


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit for another process")
async def test_full_disk_is_a_503_until_there_is_room(tmp_path: Path) -> None:
    """Nothing is half written; runs in the queue go on when there is room again."""
    async with doomed(tmp_path / "f.db") as server:
        caller, pid = server.caller, server.process.pid
        run = await caller.settled(await caller.start("tool"))
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        largest = (tmp_path / "f.db-wal").stat().st_size  # the log, where everything goes first
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, hard))

        with anyio.fail_after(30):
            while (reply := await caller.send("POST", "/threads", json={})).status == 200:
                pass
        read = await caller.send("GET", "/assistants")
        ready = await caller.ready()
        health = await caller.health()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
        done = await caller.settled((await caller.submit(run)).json)

    assert (reply.status, reply.json["error"]["type"]) == (503, "server_error")
    assert "retry-after" in reply.headers
    assert (read.status, ready.status, health.status) == (200, 503, 200)
    assert done["status"] == "completed"


async def test_statement_that_fails_is_logged_without_its_values(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What people wrote is in no log, not even where the database itself refuses it."""
    caplog.set_level("DEBUG")
    caller = await serve(db=tmp_path / "v.db")
    thread = await caller.thread()

    def forbid() -> None:
        with closing(sqlite3.connect(tmp_path / "v.db")) as file, file:
            file.execute(
                "CREATE TRIGGER forbidden BEFORE INSERT ON messages "
                "BEGIN SELECT RAISE(ABORT, 'not today'); END"
            )

    await anyio.to_thread.run_sync(forbid)
    message = {"role": "user", "content": "a secret of mine"}
    reply = await caller.send("POST", f"/threads/{thread}/messages", json=message)

    assert reply.status >= 500
    assert "not today" in caplog.text
    assert "a secret of mine" not in caplog.text + reply.text


async def test_temporary_file_is_gone_when_the_server_is(tmp_path: Path) -> None:
    """Without a file of its own, a server leaves nothing behind."""
    async with LocalServer() as server:
        path = server.path
        assert path.exists()

    assert not path.parent.exists()
