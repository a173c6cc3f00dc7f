"""The way in: one open database, and the three coroutines by which everybody uses it.

A caller names the function that does the work (`store.write(runs.cancel, thread_id, ...)`). It
is synchronous, runs in one transaction in another thread, and may run twice, so it keeps
nothing and touches nothing but the database.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import anyio.to_thread

from openai_runs.server.store import event_log, idempotency, schema
from openai_runs.server.store.database import (
    READERS,
    Connection,
    open_reader,
    open_writer,
    prepare,
)
from openai_runs.server.store.event_pages import EventLog
from openai_runs.server.store.idempotency import Once
from openai_runs.server.store.sqlite.lock import FileLock
from openai_runs.server.store.sqlite.writer import (
    Change,
    Readers,
    Transaction,
    Writer,
)

__all__ = ["Store"]

T = TypeVar("T")
P = ParamSpec("P")


class Store:
    """One open database file. Refusals of its methods are answers of the API."""

    def __init__(
        self,
        path: Path,
        lock: FileLock,
        on_change: Callable[[Change], None],
        *,
        temporary: Path | None,
    ) -> None:
        """Open the locked file; blocks, so `open_store` does it in a worker thread."""
        self.path = path
        self.lock = lock
        self._temporary = temporary
        self._connections = [open_writer(path)]
        try:
            prepare(self._connections[0], path, schema.metadata, schema.SCHEMA_VERSION)
            self._connections += [open_reader(path) for _ in range(READERS)]
        except BaseException:
            self._disconnect()
            raise
        self._writer = Writer(self._connections[0], on_change)
        self._readers = Readers(self._connections[1:])
        self.log = EventLog(self._readers)

    async def aclose(self) -> None:
        """Finish what is queued, close the file and give up the lock."""
        self._writer.stop()
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        self._writer.join()
        self._readers.close()
        self._disconnect()
        self.lock.release()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _disconnect(self) -> None:
        for connection in reversed(self._connections):
            connection.close()

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `work` finds, in one transaction that cannot write.

        Raises:
            Refusal: The work found nothing, or a wrong cursor.
            StoreUnavailable: The database cannot be read.
        """
        return await self._readers.run(lambda first: work(first, *args, **kwargs))

    async def write(
        self, work: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `work` returns, once what it wrote is on disk.

        The changes that it announces are emitted after the commit, before this returns.

        Raises:
            Refusal: The work refused; nothing of it was written.
            StoreUnavailable: The database cannot be written.

        Cancellation: the work is done all the same.
        """
        return await self._writer.run(lambda first: work(first, *args, **kwargs))

    async def write_once(
        self,
        once: Once | None,
        work: Callable[Concatenate[Transaction, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Write for a request that may come again; None: it names no `Idempotency-Key`.

        Raises:
            Replay: The request was carried out before; this is its answer.
            Refusal: As of `write`; also that the key was used for another request.
            StoreUnavailable: As of `write`.

        Cancellation: the work is done all the same.
        """
        return await self._writer.run(lambda first: work(first, *args, **kwargs), once)

    async def prune(self, now: int) -> None:
        """Forget old idempotency keys, and the events of runs that ended long ago."""
        await self._writer.run(lambda tx: idempotency.prune(tx.connection, now))
        while await self._writer.run(lambda tx: event_log.prune(tx.connection, now)):
            pass
