"""Jobs of procrastinate, written by our own transactions.

A job is a wake-up: some process is to look whether the run is to be executed. What is to be done
with it stands in the run's row alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from procrastinate.schema import SchemaManager

if TYPE_CHECKING:
    from openai_runs.server.store.postgres.connection import Connection

__all__ = ["QUEUE", "TASK", "defer", "make_queue"]

QUEUE: Final = "openai_runs"
TASK: Final = "openai_runs.execute"

_DEFER: Final = """
INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args)
SELECT %(queue)s, %(task)s, 0, NULL, id, jsonb_build_object('run_id', id)
FROM unnest(%(ids)s::text[]) AS id
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
"""
"""A job that waits for the run is enough; one under way may have read the row too early."""


def make_queue(connection: Connection) -> None:
    """Make procrastinate's tables, types and functions."""
    connection.execute(SchemaManager.get_schema())


def defer(connection: Connection, run_ids: Iterable[str]) -> None:
    """Have these runs looked at by whichever process is free, once this is committed."""
    parameters: dict[str, Any] = {"queue": QUEUE, "task": TASK, "ids": list(run_ids)}
    connection.execute(_DEFER, parameters)
