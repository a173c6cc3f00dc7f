"""The seam: what the rest of the store asks of a database, whichever it is.

A `Database` runs pieces of work. `write` runs one in a transaction and returns once that is
committed; `read` runs one that sees a single state and cannot write. Changes that a piece of work
announced are handed on after its commit, in the event loop, in the order of commits. Both give
the work a `Connection`, on which the statements of `statements.py` are executed.

`store/sqlite/` is one implementation; another gets a folder of its own beside it, with a class
that does what `Database` says, and is chosen in `open_store`. What may not live here: a table's
name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

if TYPE_CHECKING:
    from openai_runs.server.store.idempotency import Once
    from openai_runs.server.store.transaction import Transaction

__all__ = ["DIALECTS", "Connection", "Cursor", "Database", "Jobs", "Readable"]

T = TypeVar("T")

DIALECTS: Final[Mapping[str, Any]] = {
    "sqlite": sqlite.dialect(paramstyle="named"),
    "postgresql": PGDialect_psycopg(paramstyle="pyformat"),  # type: ignore[no-untyped-call]
}
"""How SQL is written, by `Connection.dialect`."""


class Cursor(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """Return how many rows an insert, update or delete changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row; None if there is none."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Any:
        """Return an iterator over the rows, which are read one at a time."""
        ...


class Connection(Protocol):
    """What a piece of work executes its statements on, within its transaction."""

    @property
    def dialect(self) -> str:
        """Return "sqlite" or "postgresql"."""
        ...

    @property
    def Error(self) -> type[Exception]:  # noqa: N802 - as of DB-API 2.0
        """Return the base class of the driver's exceptions."""
        ...

    def execute(self, sql: str, parameters: Mapping[str, Any] = ..., /) -> Cursor:
        """Execute a statement with named parameters."""
        ...

    def each(self, sql: str, parameters: Mapping[str, Any] = ..., /) -> Iterable[Any]:
        """Execute a query; its rows are read a few at a time, however many there are."""
        ...


class Readable(Protocol):
    """What can be read from."""

    async def read(self, read: Callable[[Connection], T]) -> T:
        """Return what `read` returns.

        Raises:
            Refusal: The read found nothing, or a wrong cursor.
            StoreUnavailable: The database could not read.
        """
        ...


class Jobs(Protocol):
    """What wakes a process that executes runs."""

    async def serve(self, wake: Callable[[], Awaitable[None]]) -> None:
        """Call `wake` for each job that this process gets; never returns."""
        ...


class Database(Readable, Protocol):
    """One open database."""

    path: Path | None
    """The file; None: it is no file."""
    version: str
    """The database's name and version."""
    jobs: Jobs | None
    """What wakes the processes that share it; None: one process has it alone."""

    async def write(self, work: Callable[[Transaction], T], once: Once | None = None) -> T:
        """Return what `work` returns, once it is committed; the work may be called twice.

        Raises:
            Refusal: The work refused; nothing of it was written.
            Replay: The work was done before under the same `once`.
            StoreUnavailable: The database could not write.

        Cancellation: the work is done all the same.
        """
        ...

    def publish(self, url: str) -> None:
        """Let other processes that want this database find its server at `url`."""
        ...

    def prove(self, nonce: str) -> str:
        """Return the proof that this is the server whose address was published."""
        ...

    async def aclose(self) -> None:
        """Finish what is queued, and give the database back."""
        ...
