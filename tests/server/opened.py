"""Opens files as a server does, each in a process that is killed before its nth statement.

Arguments: a file and n (0: it is not killed), and so on for more. Prints how each process ended:
the negative number of the signal, else how many statements SQLite was given; 255: refused.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from typing import Any

from openai_runs.errors import ConfigError
from openai_runs.server.store.sqlite.connection import Connection
from openai_runs.server.store.sqlite.database import SqliteDatabase

connect = sqlite3.connect


class Counting(Connection):
    """A connection of SQLite's that kills the process before a statement."""

    left = 0
    made = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Execute the statement, or do not return."""
        Counting.made += 1
        if Counting.made == Counting.left:
            signal.raise_signal(signal.SIGKILL)
        return super().execute(sql, parameters)


def connect_counting(path: str, **options: Any) -> sqlite3.Connection:
    """Connect as the server asks, with a connection that counts."""
    made: Connection = connect(path, **{**options, "factory": Counting})
    return made


def open_and_die(db: str, statements: int) -> int:
    """Return how the process ended that opened the file."""
    pid = os.fork()  # no thread was started yet; an interpreter for each would take half a second
    if pid == 0:
        Counting.left = statements
        try:
            SqliteDatabase(db, on_change=print)
        except ConfigError as refused:
            print(refused, file=sys.stderr, flush=True)  # noqa: T201 - for the test
            os._exit(255)
        os._exit(Counting.made)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sqlite3.connect = connect_counting  # type: ignore[assignment]
    for path, count in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        print(open_and_die(path, int(count)))  # noqa: T201 - how the test learns it
