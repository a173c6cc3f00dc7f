"""Opening the file: connections, pragmas, the version of the schema, what SQLite cannot read.

What may not live here: a table's name.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool, StaticPool

from openai_runs.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["READERS", "open_reader", "open_writer", "prepare"]

READERS: Final = 2
"""Reading connections, and the threads that use them."""
_BUSY_TIMEOUT: Final = 5.0
"""Seconds SQLite waits for a lock that another process has, such as a backup."""
_CHECKED_BYTES: Final = 64 * 1024 * 1024
"""Bytes up to which a file is checked as a whole when opened; larger ones take too long."""
_WAL_PAGES: Final = 1000
"""Pages of the log after which SQLite copies them into the file; its own default."""

_logger = logging.getLogger("openai_runs.server")


def open_writer(path: Path) -> Engine:
    """Return the engine of the one writing connection."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connect(path, query_only=False),
        poolclass=StaticPool,
        hide_parameters=True,  # errors are logged, and what people wrote is not
    )

    # IMMEDIATE: a transaction that begins by reading could not become a writing one later.
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def open_reader(path: Path) -> Engine:
    """Return the engine of the reading connections, which SQLite keeps from writing."""
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connect(path, query_only=True),
        poolclass=QueuePool,
        pool_size=READERS,
        max_overflow=0,
        hide_parameters=True,
    )

    # One transaction for all statements of a read: they see one state of the file.
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _connect(path: Path, *, query_only: bool) -> sqlite3.Connection:
    # isolation_level None: sqlite3 begins nothing by itself. The pools hand a connection to
    # one thread at a time, so sqlite3's own check of the thread would only be in the way.
    connection = sqlite3.connect(
        os.fspath(path), isolation_level=None, check_same_thread=False, cached_statements=256
    )
    pragmas = [
        f"busy_timeout = {round(_BUSY_TIMEOUT * 1000)}",
        "journal_mode = WAL",
        "synchronous = FULL",  # an answered 200 survives a loss of power
        "foreign_keys = ON",
        f"wal_autocheckpoint = {_WAL_PAGES}",
    ]
    if query_only:
        pragmas = [pragmas[0], "foreign_keys = ON", "query_only = ON"]
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def prepare(engine: Engine, path: Path, metadata: MetaData, version: int) -> None:
    """Make the tables of a new file, or those an old one lacks; see that it is whole and ours.

    Raises:
        ConfigError: The file is damaged, not a database, not ours, or from a newer version.
    """
    try:
        _check_whole(engine, path)
        with engine.begin() as connection:
            found = _version(connection)
            if found == 0:
                _make(connection, path, metadata, version)
            elif found < version:
                _upgrade(connection, path, metadata, version)
    except DatabaseError as error:
        message = f"cannot use database '{path}': {error.orig}"
        raise ConfigError(message) from error
    if found > version:
        message = (
            f"database '{path}' has schema version {found}; this version of openai-runs knows "
            f"versions up to {version}, so install a newer one"
        )
        raise ConfigError(message)


def _check_whole(engine: Engine, path: Path) -> None:
    if path.exists() and path.stat().st_size > _CHECKED_BYTES:
        return
    with engine.connect() as connection:
        verdict: Any = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if verdict != "ok":
        message = f"database '{path}' is damaged: {verdict}"
        raise ConfigError(message)


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _make(connection: Connection, path: Path, metadata: MetaData, version: int) -> None:
    tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
    if tables:
        message = f"database '{path}' belongs to another program"
        raise ConfigError(message)
    metadata.create_all(connection, checkfirst=False)
    connection.exec_driver_sql(f"PRAGMA user_version = {version}")


def _upgrade(connection: Connection, path: Path, metadata: MetaData, version: int) -> None:
    """Add the tables that came later; so far no table has changed."""
    metadata.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {version}")
    _logger.info("database '%s' now has schema version %d", path, version)
