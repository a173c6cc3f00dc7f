"""Two servers' databases, where the work of one is done between the reads and writes of the other.

What `tests/server/two_writers.py` is on a file, on PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

from openai_runs.server.store import Change
from openai_runs.server.store.idempotency import Once
from openai_runs.server.store.postgres.connection import Connection, Raw
from openai_runs.server.store.postgres.database import PostgresDatabase
from openai_runs.server.store.transaction import Transaction
from tests.server.two_writers import Pair

__all__ = ["RacingSide", "open_racing_pair"]

T = TypeVar("T")

_WRITES = {"INSERT", "UPDATE", "DELETE"}


class Race:
    """What is to be done before the next write or lock, or after so many reads."""

    def __init__(self) -> None:
        self._between: Callable[[], None] | None = None
        self._reads = 0

    def set(self, between: Callable[[], None], after: int) -> None:
        """Have it done once."""
        self._between, self._reads = between, after

    def finish(self) -> None:
        """Do it, if that never came."""
        between, self._between = self._between, None
        if between is not None:
            between()

    def meet(self, sql: str) -> None:
        """See a statement that is about to be executed."""
        if self._reads == 0 or sql.split(None, 1)[0] in _WRITES or " FOR " in sql:
            self.finish()
        self._reads -= 1


class RacingConnection(Connection):
    """A connection that is raced with."""

    def __init__(self, raw: Raw, race: Race) -> None:
        super().__init__(raw)
        self._race = race

    def execute(self, sql: str, parameters: Mapping[str, Any] | None = None, /) -> Any:
        """Execute a statement, after what is to come before it."""
        self._race.meet(sql)
        return super().execute(sql, parameters)


class RacingDatabase(PostgresDatabase):
    """A database whose transactions are raced with."""

    race: Race

    def _transact(self, raw: Raw, work: Callable[[Transaction], Any]) -> Any:
        def raced(tx: Transaction) -> Any:
            tx.connection = RacingConnection(raw, self.race)
            return work(tx)

        return super()._transact(raw, raced)


class Outside:
    """Looks at the database from outside, and sets the race."""

    def __init__(self, url: str, race: Race) -> None:
        self._raw = psycopg.connect(url, autocommit=True)
        self._race = race

    def race_with(self, between: Callable[[], None], *, after: int) -> None:
        """Have `between` done before the next write or lock, or after so many reads."""
        self._race.set(between, after)

    def finish_race(self) -> None:
        """Do what was to be done in between, if that never came."""
        self._race.finish()

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
        """Execute a query with `?` for each parameter."""
        query: Any = sql.replace("?", "%s")
        return self._raw.execute(query, parameters or None)

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()


class RacingSide:
    """One of the two, as a server of its own would have it."""

    def __init__(self, url: str, on_change: Callable[[Change], None]) -> None:
        race = Race()
        self._database = RacingDatabase(url, on_change, asyncio.new_event_loop())
        self._database.race = race
        self.connection = Outside(url, race)

    def run(self, work: Callable[[Transaction], T], once: Once | None = None) -> T:
        """Return what the work returns, once it is committed; in any thread."""
        return asyncio.run(self._database.write(work, once))

    def close(self) -> None:
        """Close all connections."""
        asyncio.run(self._database.aclose())
        self._database._loop.close()
        self.connection.close()


@contextmanager
def open_racing_pair(url: str) -> Iterator[Pair]:
    """Open both sides of a database."""
    changes: list[Change] = []
    sides: Any = RacingSide(url, changes.append), RacingSide(url, changes.append)
    try:
        yield Pair(sides, changes)
    finally:
        for side in sides:
            side.close()
