"""Version 5 says which process executes a run; with SQLite there is one, and it says nothing."""

from __future__ import annotations

from openai_runs.server.store.database import Connection

__all__ = ["migrate"]


def migrate(connection: Connection) -> None:
    """Add the column to the runs, in the place that `schema.py` has it, and the table."""
    connection.execute("ALTER TABLE runs ADD COLUMN worker VARCHAR")
    connection.execute(
        """
        CREATE TABLE workers (
            name VARCHAR NOT NULL,
            seen_at INTEGER NOT NULL,
            PRIMARY KEY (name)
        )
        """
    )
