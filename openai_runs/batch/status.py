"""How far a batch has come, read from its checkpoint by whoever asks; nothing is changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from openai_runs.batch.errors import BatchError
from openai_runs.batch.lock import holder

__all__ = ["APPLICATION", "BatchStatus", "reading", "status", "status_in"]

APPLICATION: Final = 0x6F726261
"""SQLite's `application_id` of a checkpoint."""


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch has come, over all starts."""

    total: int
    """Lines known so far: all of them, where the input is a file."""
    completed: int
    failed: int
    going: int
    """Lines for which something was begun and which have no outcome."""
    waiting: int
    """Lines for which nothing was begun."""
    tokens: int
    orphans: int
    """Threads that may exist beside those of the runs: a process ended while it created one. On
    a server that remembers idempotency keys there is none."""
    retryable: int = 0
    """Failed lines that `retry_failed` retries."""
    reasons: dict[str, int]
    """Failed lines by reason."""
    process: str | None
    """The id of the process that works on it."""
    out: str | None = None
    """The file of the results; None before the first start has opened it."""
    errors: str | None = None
    """The file of all others."""

    def __str__(self) -> str:
        """Return it in one line."""
        parts = [f"{self.completed:,} completed, {self.failed:,} failed"]
        if left := self.going + self.waiting:
            begun = f", {self.going:,} of them begun" if self.going else ""
            parts.append(f"{left:,} left{begun}: the same command goes on")
        return "; ".join([*parts, f"{self.tokens:,} tokens"])


def status(checkpoint: str | Path) -> BatchStatus:
    """Return how far the batch of a checkpoint has come, also while a process works on it.

    Args:
        checkpoint: The file.

    Raises:
        BatchError: It is not there, or no checkpoint.
    """
    path = Path(checkpoint)
    with reading(path) as database:
        return status_in(database, path, holder(path))


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a checkpoint that a process may work on.

    Raises:
        BatchError: It is not there, or no checkpoint.
    """
    if not path.is_file():
        msg = f"there is no checkpoint {path}"
        raise BatchError(msg)
    try:
        # Not read-only: SQLite would leave its -wal and -shm files beside it.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
            if database.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
                msg = f"{path} is no checkpoint of a batch"
                raise BatchError(msg)
            yield database
    except sqlite3.Error as error:
        msg = f"{path}: the checkpoint cannot be read: {error}"
        raise BatchError(msg) from error


def status_in(database: sqlite3.Connection, path: Path, process: str | None) -> BatchStatus:
    """Return how far the batch of an open checkpoint has come."""
    states = dict(database.execute("SELECT state, count(*) FROM items GROUP BY state"))
    reasons = dict(
        database.execute(
            "SELECT reason, count(*) FROM items WHERE state = 'failed' GROUP BY reason "
            "ORDER BY count(*) DESC"
        )
    )
    (tokens,) = database.execute("SELECT coalesce(sum(tokens), 0) FROM items").fetchone()
    query = "SELECT count(*) FROM items WHERE state = 'failed' AND retry IS NOT NULL"
    (retryable,) = database.execute(query).fetchone()
    (orphans,) = database.execute("SELECT value FROM meta WHERE name = 'orphans'").fetchone()
    return BatchStatus(
        total=sum(states.values()),
        completed=states.get("done", 0),
        failed=states.get("failed", 0),
        going=sum(states.get(state, 0) for state in ("thread", "run", "going")),
        waiting=states.get("new", 0),
        tokens=tokens,
        orphans=int(orphans),
        retryable=retryable,
        reasons=reasons,
        process=process,
        out=_file(database, path, "done"),
        errors=_file(database, path, "failed"),
    )


def _file(database: sqlite3.Connection, path: Path, name: str) -> str | None:
    """Return the file for the results of a state; it is kept relative to the checkpoint."""
    query = "SELECT value FROM meta WHERE name = ?"
    found = database.execute(query, [f"file {name}"]).fetchone()
    return None if found is None else os.path.normpath(path.parent / found[0])
