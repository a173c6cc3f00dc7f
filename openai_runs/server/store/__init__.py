"""The store: all that the server remembers, in one database. The only package that knows SQL.

At its border stand the coroutines of `Store`: each call is one transaction, answered once it is
on disk. What it does is a plain synchronous function that the caller names, of `operations`,
`runs`, `claims`, `event_pages` or `rows`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from openai_runs._extras import needs
from openai_runs._protocol.hosts import is_database_url as is_url
from openai_runs.errors import ConfigError
from openai_runs.server.store.claims import Claim
from openai_runs.server.store.database import Database
from openai_runs.server.store.event_log import Chunk, Cut, Logged, Position
from openai_runs.server.store.event_pages import EventLog, Piece, StreamStart
from openai_runs.server.store.idempotency import Once
from openai_runs.server.store.rows import PageQuery, StoredPage
from openai_runs.server.store.runs import Counts, History, Unfinished
from openai_runs.server.store.sqlite.database import SqliteDatabase
from openai_runs.server.store.sqlite.inspection import FileReport, inspect_file
from openai_runs.server.store.sqlite.lock import serving_url
from openai_runs.server.store.sqlite.proof import PROOF_PATH, is_nonce
from openai_runs.server.store.store import Store
from openai_runs.server.store.transaction import (
    Change,
    Edited,
    Moved,
    Outdated,
    Removed,
    RunState,
    Transaction,
)

__all__ = [
    "PROOF_PATH",
    "Change",
    "Chunk",
    "Claim",
    "Counts",
    "Cut",
    "Edited",
    "EventLog",
    "FileReport",
    "History",
    "Logged",
    "Moved",
    "Once",
    "Outdated",
    "PageQuery",
    "Piece",
    "Position",
    "Removed",
    "RunState",
    "Store",
    "StoredPage",
    "StreamStart",
    "Transaction",
    "Unfinished",
    "inspect_database",
    "inspect_file",
    "is_nonce",
    "is_url",
    "open_store",
    "place_of",
    "serving_url",
]

if TYPE_CHECKING:
    from openai_runs.server.store.postgres.inspection import SharedReport


def place_of(db: str | Path) -> str:
    """Return the database as it may be shown: of a URL, neither user nor password."""
    if not is_url(db):
        return str(db)
    from openai_runs.server.store.postgres import connection  # needs the extra

    return connection.place_of(str(db))


def inspect_database(url: str) -> SharedReport:
    """Return what the database at the URL is; nothing in it changes. Blocks.

    Raises:
        ConfigError: It cannot be used, or the extra `postgres` is not installed.
    """
    from openai_runs.server.store.postgres import inspection  # needs the extra

    return inspection.inspect_database(url)


async def open_store(db: str | Path | None, on_change: Callable[[Change], None]) -> Store:
    """Return the store in `db`: a URL of PostgreSQL, or a file, made if it is not there.

    None: a temporary file. `on_change` is called in the event loop for each change, after its
    commit. The one place that chooses a database.

    Raises:
        ConfigError: The file is damaged, locked by another server, or from a newer version; or
            the database at the URL cannot be used.
    """
    opening: Callable[[], Database] = partial(SqliteDatabase, db, on_change)
    if is_url(db):
        opening = partial(_open_shared, str(db), on_change, asyncio.get_running_loop())
    return Store(await anyio.to_thread.run_sync(opening))


def _open_shared(
    url: str, on_change: Callable[[Change], None], loop: asyncio.AbstractEventLoop
) -> Database:
    try:  # only here, as it needs the extra, and takes a while to load
        from openai_runs.server.store.postgres.database import PostgresDatabase
    except ImportError as error:
        raise ConfigError(needs("A database at postgresql://", error)) from error
    return PostgresDatabase(url, on_change, loop)
