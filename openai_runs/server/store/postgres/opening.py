"""Making a database ready for use: reachable, new enough, with the tables of today.

Theory of operation. The schema version stands in a table of one row. All of it happens in one
transaction that holds an advisory lock, so that of several processes that start at once the first
one makes or upgrades the tables, and the others find them. The queue of procrastinate is made
with ours: its jobs are written in our transactions.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any, Final

import anyio.from_thread
from sqlalchemy import create_mock_engine

from openai_runs.config import CLOCK_TOLERANCE
from openai_runs.errors import ConfigError
from openai_runs.server.store.database import DIALECTS
from openai_runs.server.store.migrations import MIGRATIONS, SCHEMA_VERSION
from openai_runs.server.store.postgres.connection import Connection, Raw, place_of
from openai_runs.server.store.postgres.jobs import make_queue
from openai_runs.server.store.schema import metadata

__all__ = ["COMMITS", "check_server", "prepare", "seconds_ahead"]

COMMITS: Final = "openai_runs_commits"
"""The table with the number of the last transaction that each writing thread has committed."""

_LOCK: Final = 7_230_411_860_527_113
"""Number of the advisory lock; any, but always the same."""
_OLDEST_SERVER: Final = 140000
"""As libpq writes version 14, the oldest that is still kept up."""
_FIRST_VERSION: Final = 5
"""The schema version of the first release on PostgreSQL; older ones are SQLite's."""

_UNLIMITED: Final = """
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('statement_timeout', 'transaction_timeout')
"""
"""For one transaction; older versions lack one of them."""
_TURN_PAUSE: Final = 0.05
"""Seconds between two tries to be the one that makes or upgrades the tables."""

_logger = logging.getLogger("openai_runs.server")


def prepare(raw: Raw, url: str) -> None:
    """Make the tables of an empty database, or bring older ones up to date.

    Raises:
        ConfigError: It is too old, of another encoding, of a newer version, or another program's.
        psycopg.Error: It cannot be read or written.
    """
    check_server(raw, url)
    connection = Connection(raw)
    with raw.transaction():
        _wait_for_turn(raw)
        found = _find_version(connection, url)
        if found == 0:
            _create(connection)
            _record(connection, SCHEMA_VERSION)
        elif found < SCHEMA_VERSION:
            _upgrade(connection, url, found)
        connection.execute(f"DELETE FROM {COMMITS} WHERE at < now() - INTERVAL '1 day'")
    if abs(ahead := seconds_ahead(raw)) > CLOCK_TOLERANCE:
        words = "the clock of this machine is %+.0f s from that of database %s; runs expire by it"
        _logger.warning(words, ahead, place_of(url))


def seconds_ahead(raw: Raw) -> float:
    """Return by how much the clock of this machine is ahead of the database's."""
    begun = time.time()
    query = "SELECT extract(epoch FROM clock_timestamp())::float8"
    row: Any = raw.execute(query).fetchone()
    return (begun + time.time()) / 2 - float(row[0])


def _wait_for_turn(raw: Raw) -> None:
    """Wait for who makes or upgrades the tables now, and lift limits of time: both may take long.

    Cancellation: of whoever waits for this thread of anyio's, ends it.
    """
    raw.execute(_UNLIMITED)
    while raw.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,)).fetchone() != (True,):
        with suppress(RuntimeError):  # it is no thread of anyio's
            anyio.from_thread.check_cancelled()
        time.sleep(_TURN_PAUSE)


def check_server(raw: Raw, url: str) -> None:
    """Refuse a database server that is too old, and a database that cannot hold all texts.

    Raises:
        ConfigError: It is such a one.
    """
    if raw.info.server_version < _OLDEST_SERVER:
        message = (
            f"database {place_of(url)} is PostgreSQL {raw.info.server_version // 10000}; at least "
            f"{_OLDEST_SERVER // 10000} is needed"
        )
        raise ConfigError(message)
    encoding = raw.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        message = (
            f"database {place_of(url)} has the encoding {encoding}: create one with ENCODING 'UTF8'"
        )
        raise ConfigError(message)


def _find_version(connection: Connection, url: str) -> int:
    """Return the schema version; 0: there are no tables of ours."""
    there = connection.execute("SELECT to_regclass('openai_runs_schema') IS NOT NULL").fetchone()[0]
    if not there:
        _check_free(connection, url)
        return 0
    version: int = connection.execute("SELECT version FROM openai_runs_schema").fetchone()[0]
    if version > SCHEMA_VERSION:
        message = (
            f"database {place_of(url)} has schema version {version}; this version of openai-runs "
            f"knows versions up to {SCHEMA_VERSION}, so install a newer one"
        )
        raise ConfigError(message)
    return version


def _check_free(connection: Connection, url: str) -> None:
    for table in metadata.sorted_tables:
        sql = "SELECT to_regclass(%(name)s) IS NOT NULL"
        if connection.execute(sql, {"name": table.name}).fetchone()[0]:
            message = (
                f"database {place_of(url)} has a table '{table.name}' of another program: name "
                "another database, or a schema of its own with ?options=-csearch_path%3DNAME"
            )
            raise ConfigError(message)


def _create(connection: Connection) -> None:
    def define(statement: Any, *_: object) -> None:
        connection.execute(str(statement.compile(dialect=DIALECTS["postgresql"])))

    metadata.create_all(create_mock_engine("postgresql://", define), checkfirst=False)
    connection.execute("CREATE TABLE openai_runs_schema (version BIGINT NOT NULL)")
    columns = "writer TEXT PRIMARY KEY, number BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL"
    connection.execute(f"CREATE TABLE {COMMITS} ({columns}) WITH (fillfactor = 50)")
    make_queue(connection)


def _record(connection: Connection, version: int) -> None:
    connection.execute("DELETE FROM openai_runs_schema")
    sql = "INSERT INTO openai_runs_schema (version) VALUES (%(version)s)"
    connection.execute(sql, {"version": version})


def _upgrade(connection: Connection, url: str, found: int) -> None:
    for migration in MIGRATIONS:
        if migration.version > max(found, _FIRST_VERSION):
            migration.migrate(connection)
    _record(connection, SCHEMA_VERSION)
    _logger.info(
        "database %s was upgraded from schema version %d to %d",
        place_of(url),
        found,
        SCHEMA_VERSION,
    )
