"""A look at a PostgreSQL database that changes nothing, also while servers use it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import psycopg

from openai_runs.config import WORKER_SILENCE
from openai_runs.errors import ConfigError
from openai_runs.server.store import runs
from openai_runs.server.store.migrations import SCHEMA_VERSION
from openai_runs.server.store.postgres.connection import (
    Connection,
    Raw,
    connect,
    connection_options,
    place_of,
    unusable,
)
from openai_runs.server.store.postgres.listener import CHANNEL, Listener
from openai_runs.server.store.postgres.opening import check_server, seconds_ahead

__all__ = ["SharedReport", "inspect_database"]

_THERE: Final = "SELECT to_regclass('openai_runs_schema') IS NOT NULL"
_FACTS: Final = """
SELECT pg_database_size(current_database()),
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       current_setting('max_connections')::int
"""
_ALIVE: Final = """
SELECT count(*) FROM workers
WHERE seen_at >= extract(epoch FROM clock_timestamp())::bigint - %(silence)s
"""


class SharedReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a PostgreSQL database is, and what is done with it now."""

    place: str
    """Its URL, without user and password."""
    server: str
    """The name and version of the database server."""
    size_bytes: int
    connections: int
    """Open connections of all clients of the database server."""
    max_connections: int
    version: int = 0
    """Its schema version; 0: it has no tables of this package yet."""
    newest_version: int = SCHEMA_VERSION
    """The schema version that this package makes."""
    workers: int = 0
    """Processes that execute runs, servers included."""
    queued: int = 0
    in_progress: int = 0
    oldest_seconds: int = 0
    """Seconds since the oldest run that is not over was created."""
    clock_ahead: float = 0.0
    """Seconds by which the clock of this machine is ahead of the database's."""
    problem: str = ""
    """Why servers cannot use it; empty: nothing was found."""


def inspect_database(url: str) -> SharedReport:
    """Return what the database is; nothing in it changes. Blocks: call it in a thread.

    Args:
        url: `postgresql://...`

    Raises:
        ConfigError: It cannot be reached, or is none that servers can use.
    """
    options = connection_options(url)
    try:
        with connect(options) as raw:
            check_server(raw, url)
            with _only_reading(raw):
                report = _read(raw, url)
            ahead = seconds_ahead(raw)
            problem = _find_problem(raw, url, options)
    except psycopg.Error as error:
        raise unusable(url, error) from error
    return msgspec.structs.replace(report, clock_ahead=ahead, problem=problem)


@contextmanager
def _only_reading(raw: Raw) -> Iterator[None]:
    with raw.transaction():
        raw.execute("SET TRANSACTION READ ONLY")
        yield


def _read(raw: Raw, url: str) -> SharedReport:
    row: Any = raw.execute(_FACTS).fetchone()
    report = SharedReport(
        place=place_of(url),
        server=f"PostgreSQL {raw.info.parameter_status('server_version')}",
        size_bytes=row[0],
        connections=row[1],
        max_connections=row[2],
    )
    connection = Connection(raw)
    if not connection.execute(_THERE).fetchone()[0]:
        return report
    version = connection.execute("SELECT version FROM openai_runs_schema").fetchone()[0]
    if version != SCHEMA_VERSION:  # its tables may be others
        return msgspec.structs.replace(report, version=version)
    alive = connection.execute(_ALIVE, {"silence": WORKER_SILENCE}).fetchone()[0]
    counts = runs.count(connection)
    oldest = counts.oldest_created_at
    return msgspec.structs.replace(
        report,
        version=version,
        workers=alive,
        queued=counts.by_status.get("queued", 0),
        in_progress=counts.by_status.get("in_progress", 0),
        oldest_seconds=0 if oldest is None else max(0, int(time.time()) - oldest),
    )


def _find_problem(raw: Raw, url: str, options: dict[str, Any]) -> str:
    """Return why processes could not notify each other; empty: they can."""
    listener = Listener(url, options, secrets.token_hex(8), lambda _: None)

    def notify(payload: str) -> None:
        raw.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))

    try:
        listener.start(notify)
    except ConfigError as error:
        return str(error)
    finally:
        listener.stop()
    return ""
