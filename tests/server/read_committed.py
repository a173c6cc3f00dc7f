"""A connection to SQLite whose reads see what others commit, up to its first write.

SQLite itself lets one transaction write at a time, and keeps a reading one to what was there
when it began. Other databases do what is done here (READ COMMITTED).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from openai_runs.server.store.sqlite.connection import Connection

__all__ = ["ReadCommitted"]

_WRITES = {"INSERT", "UPDATE", "DELETE"}


class ReadCommitted(Connection):
    """A real connection that begins its transaction with the first write, not before."""

    _waiting: list[str] | None = None
    """What begins the transaction, until something is written."""
    _between: Callable[[], None] | None = None
    _reads = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._changes: dict[str, str] = {}

    def race_with(self, between: Callable[[], None], *, after: int) -> None:
        """Have `between` done before the next write, or after so many reads."""
        self._between, self._reads = between, after

    def finish_race(self) -> None:
        """Do what was to be done in between, if that never came."""
        between, self._between = self._between, None
        if between is not None:
            between()

    def change_before(self, statement: str, change: str) -> None:
        """Have a row changed before this statement as if another writer had committed that.

        For what no other connection could do: this one's transaction has begun by then.
        """
        self._changes[statement] = change

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Execute it, unless it begins or ends what is not begun."""
        verb = sql.split(None, 1)[0]
        for statement in [each for each in self._changes if sql.startswith(each)]:
            super().execute(self._changes.pop(statement))
        if verb == "BEGIN":
            self._waiting = [sql]
            return self.cursor()
        if self._waiting is None:
            return super().execute(sql, parameters)
        if verb in {"COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"}:
            self._defer(verb, sql)
            return self.cursor()
        if verb in _WRITES or self._reads == 0:
            self.finish_race()
        self._reads -= 1
        if verb in _WRITES:
            waiting, self._waiting = self._waiting, None
            for statement in waiting:
                super().execute(statement)
        return super().execute(sql, parameters)

    def _defer(self, verb: str, sql: str) -> None:
        assert self._waiting is not None
        if verb == "SAVEPOINT":
            self._waiting.append(sql)
        elif verb == "RELEASE":
            self._waiting.pop()
        elif not sql.startswith("ROLLBACK TO"):
            self._waiting = None
