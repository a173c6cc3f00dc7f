"""Connections to the file: SQLite's driver, its pragmas, how its transactions begin."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from openai_runs.errors import ConfigError
from openai_runs.server.log_filter import safe_words
from openai_runs.server.store.damage import is_undecodable

__all__ = [
    "Connection",
    "Error",
    "IntegrityError",
    "open_reader",
    "open_writer",
    "pragma",
    "savepoint",
    "transaction",
    "unusable",
    "words_of",
]


class Connection(sqlite3.Connection):
    """A connection as the store takes it."""

    dialect = "sqlite"
    each = sqlite3.Connection.execute  # its cursor reads one row at a time


Error: Final = sqlite3.Error
IntegrityError: Final = sqlite3.IntegrityError

_BUSY_TIMEOUT: Final = 5.0
"""Seconds SQLite waits for a lock that another process has, such as a backup."""
_WAL_PAGES: Final = 1000
"""Pages of the log after which SQLite copies them into the file; its own default."""

_RESTORE: Final = "use another path, or restore the file from a backup"
_ADVICE: Final = {
    "SQLITE_READONLY": "a server needs to write: make the file, those beside it and its folder "
    "writable for this user, or serve a copy",
    "SQLITE_CANTOPEN": "check that its folder is there and that this user can write to it, and "
    "how many files the process may open",
    "SQLITE_PERM": "make it readable and writable for this user",
    "SQLITE_FULL": "free some space on its disk",
    "SQLITE_IOERR": "check its disk, and the space on it",
    "SQLITE_BUSY": "end the other program that uses it",
    "SQLITE_LOCKED": "end the other program that uses it",
}
"""What to do, by the beginning of SQLite's name of the error."""


def open_writer(path: Path) -> Connection:
    """Return the one writing connection.

    Raises:
        ConfigError: The file cannot be opened, or is no database.
    """
    return _open(
        path,
        "journal_mode = WAL",
        "synchronous = FULL",  # an answered 200 survives a loss of power
        f"wal_autocheckpoint = {_WAL_PAGES}",
    )


def open_reader(path: Path) -> Connection:
    """Return a reading connection, which SQLite keeps from writing.

    Raises:
        ConfigError: The file cannot be opened.
    """
    return _open(path, "query_only = ON")


def _open(path: Path, *pragmas: str) -> Connection:
    connection = None
    try:
        # isolation_level None: sqlite3 begins nothing by itself. A connection is handed to one
        # thread at a time, so sqlite3's own check of the thread would only be in the way.
        connection = sqlite3.connect(
            os.path.realpath(path),
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=Connection,
        )
        always = (f"busy_timeout = {round(_BUSY_TIMEOUT * 1000)}", "foreign_keys = ON")
        for each in (*always, *pragmas):
            connection.execute(f"PRAGMA {each}")
    except Error as error:
        if connection is not None:
            connection.close()
        raise unusable(path, error) from error
    return connection


def unusable(path: Path, error: Exception) -> ConfigError:
    """Return the error of a file that cannot be used, in SQLite's own words."""
    name = getattr(error, "sqlite_errorname", "")
    advice = next((then for begin, then in _ADVICE.items() if name.startswith(begin)), _RESTORE)
    return ConfigError(f"cannot use database '{path}': {words_of(error)}; {advice}")


def words_of(error: Exception) -> str:
    """Return SQLite's own words; those of Python's driver may quote what is in a column."""
    return safe_words(error) if is_undecodable(error) else str(error)


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    """Return what SQLite says under this name."""
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@contextmanager
def transaction(connection: Connection, *, writing: bool) -> Iterator[None]:
    """Commit what is done inside, or roll it back on any error.

    A reading one is for all statements of a read to see one state of the file.
    """
    # IMMEDIATE: a transaction that begins by reading could not become a writing one later.
    connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """Within a transaction: keep what is done inside, or undo just that on any error."""
    connection.execute("SAVEPOINT piece")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # else SQLite has rolled back everything by itself
            connection.execute("ROLLBACK TO piece")
            connection.execute("RELEASE piece")
        raise
    connection.execute("RELEASE piece")
