"""The SQLite file: changes one after the other, of its owner only."""

import os
import sqlite3
import stat
from functools import partial
from pathlib import Path

import anyio
import pytest

from openai_runs.conversations import Entry, SQLiteStore


def append(data: bytes | None, *, what: bytes) -> tuple[Entry, int]:
    """Append to an entry and return its new length."""
    new = (data or b"") + what
    return Entry(new, len(new) < 40), len(new)


async def test_changes_of_one_key_never_interleave(tmp_path: Path) -> None:
    """Two stores on one file, opened at once, as two processes would: no change is lost."""
    stores = [SQLiteStore(tmp_path / "file.db") for _ in range(2)]

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            change = partial(append, what=b"x")
            tasks.start_soon(stores[number % 2].change, "key", change)

    assert await stores[0].change("key", lambda data: (None, data)) == b"x" * 40
    assert await stores[1].open_keys() == []
    for store in stores:
        await store.aclose()


async def test_only_open_entries_are_listed(tmp_path: Path) -> None:
    """And they are there when the file is opened again."""
    store = SQLiteStore(tmp_path / "file.db")
    await store.change("open", partial(append, what=b"x"))
    await store.change("closed", partial(append, what=b"x" * 40))
    await store.aclose()

    assert await store.open_keys() == ["open"]
    await store.aclose()


async def test_file_is_its_owners_alone(tmp_path: Path) -> None:
    """It holds what users wrote, and so do the files beside it."""
    store = SQLiteStore(tmp_path / "file.db")
    await store.change("key", partial(append, what=b"x"))

    modes = [stat.S_IMODE(os.stat(file).st_mode) for file in os.scandir(tmp_path)]

    assert modes == [0o600] * 3
    await store.aclose()
    await store.aclose()


async def test_failed_change_leaves_the_entry(tmp_path: Path) -> None:
    """What the function raises comes out, and the next change begins as if nothing had been."""
    store = SQLiteStore(tmp_path / "file.db")

    def fail(data: bytes | None) -> tuple[Entry, None]:
        raise LookupError

    with pytest.raises(LookupError):
        await store.change("key", fail)
    assert await store.change("key", partial(append, what=b"x")) == 1
    await store.aclose()


async def test_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """Nothing is left open."""
    path = tmp_path / "file.db"
    path.write_bytes(b"no database, but long enough to be read as one " * 40)

    with pytest.raises(sqlite3.DatabaseError):
        await SQLiteStore(path).open_keys()
