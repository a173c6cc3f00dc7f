"""Version 2 keeps the events of each run; runs from before have an empty log."""

from __future__ import annotations

from openai_runs.server.store.database import Connection

__all__ = ["migrate"]


def migrate(connection: Connection) -> None:
    """Add the table of events."""
    connection.execute(
        """
        CREATE TABLE events (
            run_id VARCHAR NOT NULL,
            last INTEGER NOT NULL,
            first INTEGER NOT NULL,
            epoch INTEGER NOT NULL,
            created_at INTEGER NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (run_id, last),
            FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
        )
        """
    )
    connection.execute("CREATE INDEX ix_events_created_at ON events (created_at)")
