"""Version 4 keeps what a model endpoint wants back with a turn; turns from before have nothing."""

from __future__ import annotations

from openai_runs.server.store.database import Connection

__all__ = ["migrate"]


def migrate(connection: Connection) -> None:
    """Add the column to the steps, in the place that `schema.py` has it."""
    connection.execute("ALTER TABLE steps ADD COLUMN echoed TEXT")
