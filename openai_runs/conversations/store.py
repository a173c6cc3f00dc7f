"""Where conversations are kept: what a store has to do, and the one in an SQLite file.

A store knows nothing of what it keeps. Several processes may share it: each change of an entry
is made by one of them after the other.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import anyio
import anyio.to_thread

__all__ = ["Change", "Entry", "SQLiteStore", "Store"]

T = TypeVar("T")

_BUSY_TIMEOUT: Final = 30.0
"""Seconds SQLite waits for the lock that another process has."""
_BUSY_PAUSE: Final = 0.05
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS conversations (
    key TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    is_open INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS open_conversations ON conversations (key) WHERE is_open;
"""


class Entry(NamedTuple):
    """What a store keeps under a key."""

    data: bytes
    is_open: bool
    """Whether `open_keys` lists it."""


Change = Callable[[bytes | None], tuple[Entry | None, T]]
"""From an entry's data (None: there is none) to the entry that is kept from now on, and what
`change` returns; None leaves all as it is."""


class Store(Protocol):
    """Where conversations are kept; write your own for another database."""

    async def change(self, key: str, change: Change[T]) -> T:
        """Read an entry, let `change` say what is kept from now on, and return its answer.

        Another change of the same key, by any process, happens before or after, not in between.
        `change` has no side effects: it may be called again where the entry has changed meanwhile.

        Args:
            key: The entry's.
            change: See `Change`.

        Cancellation: the change is made, or it is not.
        """
        ...

    async def open_keys(self) -> list[str]:
        """Return the keys of all entries that are open.

        Cancellation: changes nothing.
        """
        ...

    async def aclose(self) -> None:
        """Close what the store has open.

        Cancellation: leaves it open.
        """
        ...


class SQLiteStore:
    """Keeps conversations in an SQLite file, which only its owner can read.

    The file is opened by the first call, in a worker thread, and may be shared by processes of
    one machine. What was changed survives the kill of a process; a loss of power may undo the
    last changes.

    Args:
        path: The file; it is created if there is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._connection: sqlite3.Connection | None = None
        self._one_at_a_time = anyio.CapacityLimiter(1)

    def __repr__(self) -> str:
        return f"SQLiteStore({self._path!r})"

    async def change(self, key: str, change: Change[T]) -> T:
        """See `Store`.

        Args:
            key: The entry's.
            change: What is kept from now on.

        Raises:
            sqlite3.Error: The file cannot be used.

        Cancellation: the change is made, or it is not.
        """
        return await self._in_thread(partial(_change, key=key, change=change))

    async def open_keys(self) -> list[str]:
        """See `Store`.

        Raises:
            sqlite3.Error: The file cannot be used.

        Cancellation: changes nothing.
        """
        return await self._in_thread(_open_keys)

    async def aclose(self) -> None:
        """Close the file; the next call opens it again.

        Cancellation: leaves it open.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            await anyio.to_thread.run_sync(connection.close, limiter=self._one_at_a_time)

    async def _in_thread(self, call: Callable[[sqlite3.Connection], T]) -> T:
        return await anyio.to_thread.run_sync(self._call, call, limiter=self._one_at_a_time)

    def _call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = _open(self._path)
        return call(self._connection)


def _open(path: str) -> sqlite3.Connection:
    # Only a new file is opened here: closing a descriptor drops SQLite's locks on that file.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not wait here while another process does so."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE)
        else:
            return


def _change(connection: sqlite3.Connection, *, key: str, change: Change[T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        row: Any = connection.execute(
            "SELECT data FROM conversations WHERE key = ?", (key,)
        ).fetchone()
        entry, answer = change(row and row[0])
        if entry is not None:
            connection.execute(
                "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?)", (key, *entry)
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answer


def _open_keys(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT key FROM conversations WHERE is_open ORDER BY key"
    return [key for (key,) in connection.execute(query)]
