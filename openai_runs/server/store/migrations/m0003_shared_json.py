"""Version 3 stores once what runs have in common; the runs that are there stay as they are."""

from __future__ import annotations

from openai_runs.server.store.database import Connection

__all__ = ["migrate"]


def migrate(connection: Connection) -> None:
    """Add the table of shared texts, and that of the runs that name them."""
    connection.execute(
        """
        CREATE TABLE shared_json (
            hash VARCHAR NOT NULL,
            body BLOB NOT NULL,
            used_at INTEGER NOT NULL,
            PRIMARY KEY (hash)
        )
        """
    )
    connection.execute(
        """
        CREATE TABLE run_shared_json (
            run_id VARCHAR NOT NULL,
            hash VARCHAR NOT NULL,
            PRIMARY KEY (run_id, hash),
            FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE,
            FOREIGN KEY(hash) REFERENCES shared_json (hash)
        )
        """
    )
    connection.execute("CREATE INDEX ix_run_shared_json_hash ON run_shared_json (hash)")
