"""Making a file ready for use: checked, ours, with the tables of today.

Theory of operation. The schema version of a file is its `PRAGMA user_version`, which SQLite
writes in the same transaction as the tables. A new file gets all tables at once. An older one is
first copied beside itself, then runs its migrations, one transaction each. All of it happens
under the lock of the file, before a second connection is opened.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_mock_engine

from openai_runs.errors import ConfigError
from openai_runs.server.store.database import DIALECTS
from openai_runs.server.store.migrations import MIGRATIONS, Migration
from openai_runs.server.store.schema import metadata
from openai_runs.server.store.sqlite.connection import (
    Connection,
    Error,
    pragma,
    transaction,
    unusable,
    words_of,
)
from openai_runs.server.store.sqlite.files import set_private

__all__ = ["copy_path", "prepare"]

_CHECKED_BYTES: Final = 64 * 1024 * 1024
"""Bytes up to which a file is checked as a whole when opened; larger ones take too long."""
_OUR_TABLES: Final = frozenset({"assistants", "threads", "messages", "runs", "steps"})
"""Tables of every schema version; a file without them is not ours."""

_logger = logging.getLogger("openai_runs.server")


def prepare(
    connection: Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS
) -> None:
    """Make the tables of a new file, or bring an older one up to date; check that it is ours.

    Raises:
        ConfigError: The file is damaged, no database, not ours, or of a newer version, or it
            cannot be copied, upgraded or written to.
    """
    try:
        _check_whole(connection, path)
        found = _find_version(connection, path)
        if found == 0:
            _create(connection, migrations[-1].version)
        elif found != migrations[-1].version:
            _upgrade(connection, path, found, migrations)
        else:
            with transaction(connection, writing=True):  # else each write would be a 503
                _record(connection, found)
    except Error as error:
        raise unusable(path, error) from error


def _check_whole(connection: Connection, path: Path) -> None:
    if path.exists() and path.stat().st_size > _CHECKED_BYTES:
        return
    verdict = pragma(connection, "quick_check(1)")
    if verdict != "ok":
        message = f"database '{path}' is damaged: {verdict}"
        raise ConfigError(message)


def _find_version(connection: Connection, path: Path) -> int:
    """Return the schema version of the file; 0: it is empty."""
    version: int = pragma(connection, "user_version")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    there = {name for (name,) in names}
    if there if version == 0 else not (version > 0 and there >= _OUR_TABLES):
        message = f"database '{path}' belongs to another program"
        raise ConfigError(message)
    return version


def _create(connection: Connection, version: int) -> None:
    def define(statement: Any, *_: object) -> None:
        connection.execute(str(statement.compile(dialect=DIALECTS["sqlite"])))

    with transaction(connection, writing=True):
        metadata.create_all(create_mock_engine("sqlite://", define), checkfirst=False)
        _record(connection, version)


def _record(connection: Connection, version: int) -> None:
    connection.execute(f"PRAGMA user_version = {version}")


def _upgrade(
    connection: Connection, path: Path, found: int, migrations: Sequence[Migration]
) -> None:
    newest = migrations[-1].version
    if found > newest:
        raise ConfigError(_describe_newer(path, found, newest))
    copy = _copy(connection, path, found)
    connection.execute("PRAGMA foreign_keys = OFF")  # a table that is rebuilt is dropped first
    for migration in migrations:
        if migration.version > found:
            _migrate(connection, path, migration)
    connection.execute("PRAGMA foreign_keys = ON")
    _logger.info(
        "database '%s' was upgraded from schema version %d to %d; '%s' is a copy of it from before",
        path,
        found,
        newest,
        copy,
    )


def _describe_newer(path: Path, found: int, newest: int) -> str:
    copies = (copy_path(path, version) for version in range(newest, 0, -1))
    there = next((copy for copy in copies if copy.exists()), None)
    instead = f", or use its copy from before, '{there}'" if there is not None else ""
    return (
        f"database '{path}' has schema version {found}; this version of openai-runs knows "
        f"versions up to {newest}, so install a newer one{instead}"
    )


def _migrate(connection: Connection, path: Path, migration: Migration) -> None:
    version = migration.version
    try:
        with transaction(connection, writing=True):
            migration.migrate(connection)
            broken = connection.execute("PRAGMA foreign_key_check").fetchone()
            if broken is not None:
                message = f"rows of {broken[0]} refer to rows of {broken[2]} that are not there"
                raise ConfigError(message)
            _record(connection, version)
    except (Error, ConfigError) as error:
        message = (
            f"cannot upgrade database '{path}' from schema version {version - 1} to {version}, "
            f"and it stays at {version - 1}: "
            f"{words_of(error) if isinstance(error, Error) else error}"
        )
        raise ConfigError(message) from error


def copy_path(path: Path, version: int) -> Path:
    """Return where the copy of a file of this schema version is kept: beside the file itself."""
    real = Path(os.path.realpath(path))
    return real.with_name(f"{real.name}.schema-{version}")


def _copy(connection: Connection, path: Path, version: int) -> Path:
    """Copy the file before it is upgraded; a copy that is there is whole.

    Raises:
        ConfigError: There is no space for it, or the folder cannot be written to.
    """
    copy = copy_path(path, version)
    partial = copy.with_name(f"{copy.name}.partial")
    try:
        try:
            _write_copy(connection, partial)
            os.replace(partial, copy)
            _sync(copy.parent)
        finally:
            partial.unlink(missing_ok=True)
    except (Error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else words_of(error)
        message = (
            f"database '{path}' has schema version {version} and must be upgraded, but cannot be "
            f"copied to '{copy}' first: {reason}"
        )
        raise ConfigError(message) from error
    return copy


def _write_copy(connection: Connection, target: Path) -> None:
    target.unlink(missing_ok=True)  # of an upgrade that was killed
    # Made here and not by SQLite: nobody may read the copy who may not read the file.
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        set_private(fd)  # whatever the umask
        connection.execute("VACUUM INTO ?", (os.fspath(target),))
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
