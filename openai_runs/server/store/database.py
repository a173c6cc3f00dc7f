"""The driver: opening the file, transactions, the version of the schema, what cannot be read.

What another database would change stands here and nowhere else: its driver, its dialect,
how its transactions begin. What may not live here: a table's name.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import MetaData, create_mock_engine
from sqlalchemy.dialects import sqlite

from openai_runs.errors import ConfigError

__all__ = [
    "DIALECT",
    "READERS",
    "Connection",
    "Cursor",
    "Error",
    "IntegrityError",
    "open_reader",
    "open_writer",
    "prepare",
    "savepoint",
    "transaction",
]

Connection: TypeAlias = sqlite3.Connection
Cursor: TypeAlias = sqlite3.Cursor
Error: Final = sqlite3.Error
IntegrityError: Final = sqlite3.IntegrityError
DIALECT: Final = sqlite.dialect(paramstyle="named")

READERS: Final = 2
"""Reading connections, and the threads that use them."""
_BUSY_TIMEOUT: Final = 5.0
"""Seconds SQLite waits for a lock that another process has, such as a backup."""
_CHECKED_BYTES: Final = 64 * 1024 * 1024
"""Bytes up to which a file is checked as a whole when opened; larger ones take too long."""
_WAL_PAGES: Final = 1000
"""Pages of the log after which SQLite copies them into the file; its own default."""

_logger = logging.getLogger("openai_runs.server")


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
            os.fspath(path), isolation_level=None, check_same_thread=False, cached_statements=256
        )
        always = (f"busy_timeout = {round(_BUSY_TIMEOUT * 1000)}", "foreign_keys = ON")
        for pragma in (*always, *pragmas):
            connection.execute(f"PRAGMA {pragma}")
    except Error as error:
        if connection is not None:
            connection.close()
        raise _unusable(path, error) from error
    return connection


def _unusable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"cannot use database '{path}': {error}")


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


def prepare(connection: Connection, path: Path, metadata: MetaData, version: int) -> None:
    """Make the tables of a new file, or those an old one lacks; see that it is whole and ours.

    Raises:
        ConfigError: The file is damaged, not a database, not ours, or from a newer version.
    """
    try:
        _check_whole(connection, path)
        with transaction(connection, writing=True):
            found = _pragma(connection, "user_version")
            if found < version:
                _make(connection, path, metadata, found)
                connection.execute(f"PRAGMA user_version = {version}")
    except Error as error:
        raise _unusable(path, error) from error
    if found > version:
        message = (
            f"database '{path}' has schema version {found}; this version of openai-runs knows "
            f"versions up to {version}, so install a newer one"
        )
        raise ConfigError(message)


def _check_whole(connection: Connection, path: Path) -> None:
    if path.exists() and path.stat().st_size > _CHECKED_BYTES:
        return
    verdict = _pragma(connection, "quick_check(1)")
    if verdict != "ok":
        message = f"database '{path}' is damaged: {verdict}"
        raise ConfigError(message)


def _pragma(connection: Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _make(connection: Connection, path: Path, metadata: MetaData, found: int) -> None:
    """Add the tables that are not there; so far no table has changed."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    there = {name for (name,) in names}
    if found == 0 and there:
        message = f"database '{path}' belongs to another program"
        raise ConfigError(message)
    lacking = [table for table in metadata.sorted_tables if table.name not in there]

    def define(statement: Any, *_: object) -> None:
        connection.execute(str(statement.compile(dialect=DIALECT)))

    metadata.create_all(create_mock_engine("sqlite://", define), lacking, checkfirst=False)
    if found:
        _logger.info("database '%s' has new tables: it had schema version %d", path, found)
