"""A look at a database file that changes nothing, also while a server has it open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from openai_runs.errors import ConfigError
from openai_runs.server.store.migrations import SCHEMA_VERSION
from openai_runs.server.store.sqlite.connection import Error, pragma, words_of
from openai_runs.server.store.sqlite.files import real_path
from openai_runs.server.store.sqlite.lock import serving_url

__all__ = ["FileReport", "inspect_file"]

_PATIENCE: Final = 2.0
"""Seconds for the server that has the file to prove that it has."""
_OUR_TABLE: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'runs'"


class FileReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a database file is, and who has it."""

    size_bytes: int = 0
    version: int = 0
    """Its schema version; 0: it has no tables yet."""
    newest_version: int = SCHEMA_VERSION
    """The schema version that this package makes."""
    problem: str = ""
    """Why it cannot be used; empty: nothing was found."""
    server_url: str = ""
    """The server that has it open; empty: none."""
    lock_problem: str = ""
    """Why that cannot be known."""


def inspect_file(path: Path) -> FileReport:
    """Return what the file is; it is opened for reading alone. Blocks: call it in a thread.

    Args:
        path: The database file.

    Raises:
        ConfigError: It is not there, or no file.
    """
    real = real_path(path)
    if not real.is_file():
        what = "is no file" if real.exists() else "is not there"
        message = f"database '{path}' {what}"
        raise ConfigError(message)
    server_url = lock_problem = problem = ""
    try:
        server_url = serving_url(path, patience=_PATIENCE) or ""
    except ConfigError as error:
        lock_problem = str(error)
    version = 0
    try:
        version, problem = _read(real)
    except Error as error:
        problem = words_of(error)
    return FileReport(
        size_bytes=real.stat().st_size,
        version=version,
        problem=problem,
        server_url=server_url,
        lock_problem=lock_problem,
    )


def _read(real: Path) -> tuple[int, str]:
    """Return the schema version, and what is wrong with the file.

    Raises:
        Error: SQLite cannot read it.
    """
    # Without a log there is nobody who writes; and SQLite would leave an empty one behind.
    mode = "mode=ro" if real.with_name(f"{real.name}-wal").exists() else "immutable=1"
    uri = f"file:{quote(str(real))}?{mode}"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        version: int = pragma(connection, "user_version")
        (ours,) = connection.execute(_OUR_TABLE).fetchone()
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and not (version and ours):
            return version, "it belongs to another program"
        verdict = pragma(connection, "quick_check(1)")
        return version, "" if verdict == "ok" else f"it is damaged: {verdict}"
