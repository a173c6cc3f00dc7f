"""The way in: one open database, and the three coroutines by which everybody uses it.

A caller names the function that does the work (`store.write(runs.cancel, thread_id, ...)`). It
is synchronous, runs in one transaction in another thread, and may run twice, so it keeps
nothing and touches nothing but the database.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from openai_runs.server.store import event_log, idempotency, shared_json
from openai_runs.server.store.database import Connection, Database, Jobs
from openai_runs.server.store.event_pages import EventLog
from openai_runs.server.store.idempotency import Once
from openai_runs.server.store.shared_json import SharedJson
from openai_runs.server.store.transaction import Transaction

__all__ = ["Store"]

T = TypeVar("T")
P = ParamSpec("P")


class Store:
    """One open database. Refusals of its methods are answers of the API."""

    def __init__(self, database: Database) -> None:
        """Work on this database, which `aclose` closes."""
        self._database = database
        self.shared_json = SharedJson(database)
        """What is sent of runs: what the store gives of them is without what they share."""
        self.log = EventLog(database, self.shared_json)

    @property
    def path(self) -> Path | None:
        """Return the file; None: it is no file."""
        return self._database.path

    @property
    def version(self) -> str:
        """Return the name and version of the database, as for a health page."""
        return self._database.version

    @property
    def jobs(self) -> Jobs | None:
        """Return what wakes the processes that share the database; None: this one has it alone."""
        return self._database.jobs

    @property
    def is_shared(self) -> bool:
        """Return whether other processes may use the database at the same time."""
        return self._database.jobs is not None

    def publish(self, url: str) -> None:
        """Let other processes that want this database find its server at `url`."""
        self._database.publish(url)

    def prove(self, nonce: str) -> str:
        """Return the proof, for this nonce, that this server has the database."""
        return self._database.prove(nonce)

    async def aclose(self) -> None:
        """Finish what is queued, and close the database."""
        await self._database.aclose()

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `work` finds, in one transaction that cannot write.

        Raises:
            Refusal: The work found nothing, or a wrong cursor.
            StoreUnavailable: The database cannot be read.
        """
        return await self._database.read(lambda first: work(first, *args, **kwargs))

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
        return await self._database.write(lambda first: work(first, *args, **kwargs))

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
        return await self._database.write(lambda first: work(first, *args, **kwargs), once)

    async def prune(self, now: int) -> None:
        """Forget old idempotency keys, events of runs that ended long ago, and JSON of no run."""
        await self._database.write(lambda tx: idempotency.prune(tx.connection, now))
        while await self._database.write(lambda tx: event_log.prune(tx.connection, now)):
            pass
        while await self._database.write(lambda tx: shared_json.prune(tx.connection, now)):
            pass
