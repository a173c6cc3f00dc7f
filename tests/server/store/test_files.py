"""The files of a database: for their owner alone, writable, and where they can be locked."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from openai_runs.errors import ConfigError
from openai_runs.server import LocalServer, serving_url
from openai_runs.server.store.sqlite.connection import Connection
from openai_runs.server.store.sqlite.lock import FileLock
from openai_runs.server.store.sqlite.mounts import find_network, warn_of_network
from tests.server.conftest import Serve

START = """
import asyncio, os, sys
from openai_runs import ConfigError
from openai_runs.server import LocalServer

async def main():
    async with LocalServer():  # what is imported late is imported while it can be read
        pass
    os.umask(0)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        async with LocalServer(sys.argv[1]):
            print("started")
    except ConfigError as error:
        print(error)

asyncio.run(main())
"""
"""Starts a server as a user whom permissions bind, also where the tests run as root."""

pytestmark = pytest.mark.sqlite("about the file")


def start_unprivileged(db: Path) -> str:
    """Return what the program above says of this file."""
    done = subprocess.run(
        [sys.executable, "-c", START, str(db)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[3],
        timeout=50,
        text=True,
    )
    return done.stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of `start_unprivileged` can reach, and owns."""
    with tempfile.TemporaryDirectory() as made:
        if os.getuid() == 0:
            os.chown(made, 65534, 65534)
        yield Path(made)
        os.chmod(made, 0o700)


def modes(folder: Path) -> dict[str, int]:
    """Return the permissions of the files in a folder."""
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777], ids=oct)
async def test_files_are_made_for_their_owner_alone(
    umask: int, serve: Serve, tmp_path: Path
) -> None:
    """Whatever the umask: the database, its log, and the lock."""
    (tmp_path / "made").mkdir()
    before = os.umask(umask)
    try:
        caller = await serve(db=tmp_path / "made" / "runs.db")
        await caller.thread("Hello")
    finally:
        os.umask(before)

    names = {"runs.db", "runs.db-wal", "runs.db-shm", "runs.db.lock"}
    assert modes(tmp_path / "made") == dict.fromkeys(names, 0o600)


async def test_temporary_database_is_for_its_owner_alone() -> None:
    """Its folder too."""
    async with LocalServer() as server:
        assert set(modes(server.path.parent).values()) == {0o600}
        assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700


async def test_rights_of_others_are_taken_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A database of an older version, made under the umask, and copies of it."""
    db = tmp_path / "runs.db"
    async with LocalServer(db):
        pass
    (tmp_path / "runs.db.schema-2").touch()
    for each in (db, tmp_path / "runs.db.lock", tmp_path / "runs.db.schema-2"):
        each.chmod(0o644)
    (tmp_path / "other.txt").touch(0o644)
    (tmp_path / "other.txt").chmod(0o644)

    async with LocalServer(db):
        found = modes(tmp_path)

    assert found.pop("other.txt") == 0o644
    assert set(found.values()) == {0o600}
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 1
    assert f"other users had rights to database '{db}'" in said[0]
    assert "runs.db.schema-2" in said[0]


@pytest.mark.parametrize("refusal", [None, PermissionError(1, "not permitted")], ids=["no", "yes"])
async def test_file_system_without_permissions_is_warned_of(
    refusal: OSError | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FAT, or a share with one mode for all: the server starts, and its lock can be found."""
    db = tmp_path / "runs.db"
    async with LocalServer(db):
        pass
    for name in modes(tmp_path):
        os.chmod(tmp_path / name, 0o777)

    def change(*args: Any) -> None:
        if refusal is not None:
            raise refusal

    monkeypatch.setattr(os, "chmod", change)
    monkeypatch.setattr(os, "fchmod", change)
    async with LocalServer(db) as server:
        assert await anyio.to_thread.run_sync(serving_url, db) == server.url
    monkeypatch.undo()

    assert f"other users have rights to database '{db}', and they cannot be taken" in caplog.text


SWAPS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda lock, target: lock.symlink_to(target),
    "hard-link": lambda lock, target: lock.hardlink_to(target),
    "fifo": lambda lock, target: os.mkfifo(lock),
    "directory": lambda lock, target: lock.mkdir(),
    "nothing": lambda lock, target: None,
}


@pytest.mark.parametrize("there", [True, False], ids=["there", "not-there"])
@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_lock_that_is_swapped_between_check_and_opening_is_not_followed(
    *,
    swap: Callable[[Path, Path], None],
    there: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came in its place keeps its content, and nobody waits for it."""
    db, lock, target = tmp_path / "runs.db", tmp_path / "runs.db.lock", tmp_path / "target"
    target.write_text("precious")
    if there:
        lock.touch(0o600)
    opening = os.open

    def swap_and_open(path: Any, *args: Any, **options: Any) -> int:
        if Path(path) == lock and not lock.is_dir():
            lock.unlink(missing_ok=True)
            swap(lock, target)
        return opening(path, *args, **options)

    monkeypatch.setattr(os, "open", swap_and_open)
    if swap is SWAPS["nothing"]:
        FileLock(db).release()
    else:
        with pytest.raises(ConfigError, match=r"runs\.db\.lock"):
            FileLock(db)

    assert target.read_text() == "precious"


async def test_file_of_another_program_keeps_its_permissions(tmp_path: Path) -> None:
    """Nothing of what is refused is changed."""
    db = tmp_path / "notes.txt"
    db.write_text("These are notes. " * 100)
    db.chmod(0o644)

    with pytest.raises(ConfigError, match="not a database"):
        await LocalServer(db).start()

    assert stat.S_IMODE(db.stat().st_mode) == 0o644


@pytest.mark.parametrize("what", ["database", "folder", "write-ahead log"])
async def test_database_that_is_marked_read_only_is_refused_at_start(
    what: str, tmp_path: Path
) -> None:
    """Also by root, who could write: the mark says that nobody is to."""
    folder = tmp_path / "data"
    folder.mkdir()
    db = folder / "runs.db"
    async with LocalServer(db):
        pass
    (folder / "runs.db-wal").touch()
    marked = {"database": db, "folder": folder, "write-ahead log": folder / "runs.db-wal"}[what]
    marked.chmod(0o555 if marked == folder else 0o444)

    try:
        with pytest.raises(ConfigError) as refused:
            await LocalServer(db).start()
    finally:
        marked.chmod(0o700)

    assert f"'{db}'" in str(refused.value)
    assert f"'{marked}' cannot be written to (mode 0" in str(refused.value)
    assert "change the permissions" in str(refused.value)


@pytest.mark.timeout(120)
def test_database_that_permissions_keep_from_this_user_is_refused(folder: Path) -> None:
    """Tried by a user without privileges: each error names the path and the reason."""
    db = folder / "runs.db"

    assert start_unprivileged(db) == "started\n"
    assert modes(folder) == {"runs.db": 0o600, "runs.db.lock": 0o600}

    db.chmod(0o400)
    assert f"'{db}' cannot be written to (mode 0400" in start_unprivileged(db)
    db.chmod(0o600)
    folder.chmod(0o500)
    assert f"'{folder}' cannot be written to (mode 0500" in start_unprivileged(db)
    folder.chmod(0o000)
    assert f"Permission denied at '{db}'" in start_unprivileged(db)
    folder.chmod(0o700)
    if os.getuid() == 0:  # only root can give a file away
        os.chown(db, 1234, 1234)
        assert "belongs to user id 1234" in start_unprivileged(db)
        os.chown(db, 65534, 65534)
        os.chown(folder / "runs.db.lock", 1234, 1234)
        assert "belongs to user id 1234" in start_unprivileged(db)


FAILURES: dict[str, tuple[str, str, str]] = {
    "read-only": ("SQLITE_READONLY", "attempt to write a readonly database", "needs to write"),
    "read-only-folder": ("SQLITE_READONLY_DIRECTORY", "attempt to write", "needs to write"),
    "full": ("SQLITE_FULL", "database or disk is full", "free some space"),
    "disk": ("SQLITE_IOERR_WRITE", "disk I/O error", "check its disk"),
}


@pytest.mark.parametrize(("name", "words", "advice"), FAILURES.values(), ids=FAILURES)
async def test_database_that_cannot_be_written_is_refused_at_start(
    name: str, words: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that is read-only or full shows in the first write, which the start makes."""
    db = tmp_path / "runs.db"
    async with LocalServer(db):
        pass
    connect = sqlite3.connect

    class Failing(Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql.startswith("PRAGMA user_version ="):
                error = sqlite3.OperationalError(words)
                error.sqlite_errorname = name
                raise error
            return super().execute(sql, *args)

    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, **o: connect(*a, **{**o, "factory": Failing})
    )

    with pytest.raises(ConfigError) as refused:
        await LocalServer(db).start()

    assert str(refused.value).startswith(f"cannot use database '{db}': {words}; ")
    assert advice in str(refused.value)


async def test_start_of_a_read_only_connection_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite opens a file that it may not write all the same: its own refusal ends the start."""
    db = tmp_path / "runs.db"
    async with LocalServer(db):
        pass
    connect = sqlite3.connect

    def connect_read_only(path: str, **options: Any) -> Any:
        return connect(f"file:{path}?mode=ro", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", connect_read_only)

    with pytest.raises(ConfigError, match="readonly database; a server needs to write"):
        await LocalServer(db).start()


TABLE = """\
22 1 0:20 / / rw,relatime - ext4 /dev/sda1 rw
23 22 0:21 / /mnt/share rw - nfs4 server:/share rw
24 22 0:22 / /mnt/share/local rw - xfs /dev/sdb1 rw
25 22 0:23 / /mnt/with\\040space rw shared:1 master:2 - cifs //server/share rw
26 22 0:24 / /mnt/ssh rw - fuse.sshfs user@host: rw
27 22 0:25 / /mnt/usb rw - fuseblk /dev/sdc1 rw
28 22 0:26 / /mnt/overlay rw - fuse.fuse-overlayfs overlay rw
29 22 0:27 / /mnt/vm rw - 9p hostshare rw
30 22 0:28 / /mnt/twice rw - nfs server:/a rw
31 22 0:29 / /mnt/twice rw - tmpfs tmpfs rw
32 22 0:30 / /mnt/s3 rw - fuse.s3fs s3fs rw
33 22 0:31 / /mnt/odd
a line that is none
"""
PLACES = {
    "/home/me/runs.db": None,
    "/mnt/share/runs.db": "nfs4",
    "/mnt/share/deep/er/runs.db": "nfs4",
    "/mnt/share/local/runs.db": None,
    "/mnt/shared/runs.db": None,
    "/mnt/with space/runs.db": "cifs",
    "/mnt/ssh/runs.db": "fuse.sshfs",
    "/mnt/usb/runs.db": None,
    "/mnt/overlay/runs.db": None,
    "/mnt/vm/runs.db": "9p",
    "/mnt/twice/runs.db": None,
    "/mnt/s3/runs.db": "fuse.s3fs",
}


@pytest.mark.parametrize(("path", "kind"), PLACES.items(), ids=PLACES)
def test_file_system_of_a_network_is_known_by_its_type(path: str, kind: str | None) -> None:
    """The nearest mount counts, and of two at one place the later one."""
    assert find_network(Path(path), TABLE) == kind


async def test_database_on_a_network_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line at start: which file, which file system, and why it matters; then it is served."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 0:20 / / rw - ext4 x rw\n23 22 0:21 / {tmp_path} rw - nfs4 s:/ rw\n")
    db = tmp_path / "runs.db"
    monkeypatch.setattr("openai_runs.server.store.sqlite.mounts._MOUNTS", mounts)

    async with LocalServer(db):
        pass

    (line,) = [r.getMessage() for r in caplog.records if "file system" in r.getMessage()]
    assert f"'{db}' is on a file system of type nfs4" in line
    assert "write-ahead log" in line


def test_nothing_is_said_where_file_systems_are_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Elsewhere than on Linux there is no such table."""
    warn_of_network(tmp_path / "runs.db", tmp_path / "nothing")
    (tmp_path / "garbage").write_bytes(b"\xff\xfe - - -\n\n")
    warn_of_network(tmp_path / "runs.db", tmp_path / "garbage")

    assert not caplog.records


def test_copy_of_a_database_is_made_by_nobody_else(tmp_path: Path) -> None:
    """A link where the copy of an upgrade is to be made leads nowhere: its target stays."""
    from openai_runs.server.store.sqlite.opening import copy_path
    from tests.server.store.test_migrations import upgrade

    db, target = tmp_path / "runs.db", tmp_path / "target"
    target.write_text("precious")
    with closing(sqlite3.connect(db)) as file, file:
        for table in ("assistants", "threads", "messages", "runs", "steps"):
            file.execute(f"CREATE TABLE {table} (id)")
        file.execute("PRAGMA user_version = 1")
    copy_path(db, 1).symlink_to(target)
    copy_path(db, 1).with_name("runs.db.schema-1.partial").symlink_to(target)

    with pytest.raises(ConfigError, match="cannot upgrade"):
        upgrade(db)

    assert target.read_text() == "precious"
    assert not copy_path(db, 1).is_symlink()
