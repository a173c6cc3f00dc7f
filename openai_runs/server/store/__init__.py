"""The store: all that the server remembers, in one database. The only package that knows SQL.

At its border stand the coroutines of `Store`: each call is one transaction, answered once it is
on disk. What it does is a plain synchronous function that the caller names, of `operations`,
`runs`, `claims`, `event_pages` or `rows`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio.to_thread

from openai_runs.server.store.claims import Claim
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
    Removed,
    RunState,
    Transaction,
)

__all__ = [
    "PROOF_PATH",
    "SQLITE_VERSION",
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
    "inspect_file",
    "is_nonce",
    "open_store",
    "serving_url",
]

SQLITE_VERSION: Final = sqlite3.sqlite_version


async def open_store(db: str | Path | None, on_change: Callable[[Change], None]) -> Store:
    """Return the store in the file `db`, made if it is not there; None: a temporary one.

    `on_change` is called in the event loop for each change, after its commit. The one place that
    chooses a database.

    Raises:
        ConfigError: The file is damaged, locked by another server, or from a newer version.
    """
    database = await anyio.to_thread.run_sync(SqliteDatabase, db, on_change)
    return Store(database, database.path)
