"""One SQLite file as a `Database`: the lock, the one writer, the readers."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from weakref import finalize

import anyio.to_thread

from openai_runs.server.store.database import Jobs
from openai_runs.server.store.sqlite import connection as driver
from openai_runs.server.store.sqlite.files import check_database, keep_private, make_private
from openai_runs.server.store.sqlite.lock import FileLock
from openai_runs.server.store.sqlite.mounts import warn_of_network
from openai_runs.server.store.sqlite.opening import prepare
from openai_runs.server.store.sqlite.writer import Readers, Writer
from openai_runs.server.store.transaction import Change

__all__ = ["SqliteDatabase"]

T = TypeVar("T")

_READERS: Final = 2
"""Reading connections, and the threads that use them."""


class SqliteDatabase:
    """The file, locked and ready for use."""

    def __init__(self, db: str | Path | None, on_change: Callable[[Change], None]) -> None:
        """Open the file, made if it is not there; None: a temporary one. Blocks.

        Raises:
            ConfigError: The file is damaged, locked by another server, read-only, somebody else's,
                or cannot be used.
        """
        self._remove_temporary: Callable[[], object] = _nothing
        if db is None:
            folder = tempfile.mkdtemp(prefix="openai-runs-")
            # Also where nobody closes it: when the object is collected, or the interpreter ends.
            self._remove_temporary = finalize(self, _remove, folder, os.getpid())
            db = Path(folder, "runs.db")
        self.path: Path | None = Path(db)
        self.jobs: Jobs | None = None
        self.version = f"SQLite {sqlite3.sqlite_version}"
        self._connections: list[driver.Connection] = []
        try:
            check_database(self.path)
            self._lock = FileLock(self.path)
        except BaseException:
            self._remove_temporary()
            raise
        try:
            make_private(self.path)
            warn_of_network(self.path)
            self._connections.append(driver.open_writer(self.path))
            prepare(self._connections[0], self.path)
            keep_private(self.path)  # it is ours by now
            for _ in range(_READERS):  # one by one: where one fails, those before it are closed
                self._connections.append(driver.open_reader(self.path))
        except BaseException:
            self._release()
            raise
        self._writer = Writer(self._connections[0], on_change)
        self._readers = Readers(self._connections[1:])
        # Not methods that forward: each would be a frame of every request.
        self.write = self._writer.run
        self.read = self._readers.read

    def publish(self, url: str) -> None:
        """Write the server's address into the lock file."""
        self._lock.publish(url)

    def prove(self, nonce: str) -> str:
        """Return the proof that this is the server whose address is in the lock file."""
        return self._lock.prove(nonce)

    async def aclose(self) -> None:
        """Finish what is queued, close the file and give up the lock."""
        self._writer.stop()
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        self._writer.join()
        self._readers.close()
        self._release()

    def _release(self) -> None:
        for connection in reversed(self._connections):  # the writer last: it tidies up SQLite's log
            connection.close()
        self._lock.release()
        self._remove_temporary()


def _remove(folder: str, owner: int) -> None:
    """Remove a temporary folder, in the process that made it: a fork ends with a copy of it all."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _nothing() -> None:
    """Remove nothing: the file is the caller's."""
