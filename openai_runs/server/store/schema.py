"""The tables. A new database is made from here; `migrations` brings an older one to the same.

Columns are what is asked for in a WHERE; the rest of an object is its wire JSON in
`body`, always rewritten together with the columns that repeat a part of it. `seq` is the
order of creation. In SQLite one writer hands it out, so it is also the order of commits; elsewhere
what is added to a thread holds the lock of the thread's row, so within a thread it is the same. A
cursor that points at one never skips a row that is committed later.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    literal_column,
    text,
)

from openai_runs.types.base import ACTIVE_STATUSES

__all__ = [
    "ACTIVE",
    "PROJECT",
    "assistants",
    "events",
    "idempotency",
    "messages",
    "metadata",
    "probe",
    "run_shared_json",
    "runs",
    "shared_json",
    "steps",
    "threads",
    "workers",
]

PROJECT: Final = "default"
"""The one project there is; keys that belong to projects may come."""

INTEGER: Final = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits in each database."""

metadata: Final = MetaData()


def _seq() -> Column[int]:
    return Column("seq", INTEGER, primary_key=True)


def _id() -> Column[str]:
    return Column("id", String, nullable=False, unique=True)


def _body() -> Column[str]:
    return Column("body", Text, nullable=False)


def _thread_id() -> Column[str]:
    return Column("thread_id", String, ForeignKey("threads.id", ondelete="CASCADE"), nullable=False)


assistants: Final = Table(
    "assistants",
    metadata,
    _seq(),
    _id(),
    Column("project", String, nullable=False, default=PROJECT),
    _body(),
    sqlite_autoincrement=True,
)

threads: Final = Table(
    "threads",
    metadata,
    _seq(),
    _id(),
    Column("project", String, nullable=False, default=PROJECT),
    _body(),
    sqlite_autoincrement=True,
)

messages: Final = Table(
    "messages",
    metadata,
    _seq(),
    _id(),
    _thread_id(),
    Column("run_id", String),
    _body(),
    Index("messages_by_thread", "thread_id", "seq"),
    Index("messages_by_run", "run_id", "seq"),
    sqlite_autoincrement=True,
)

_ACTIVE: Final = ", ".join(f"'{status}'" for status in sorted(ACTIVE_STATUSES))


def _where_active() -> dict[str, Any]:
    condition = text(f"status IN ({_ACTIVE})")
    return {"sqlite_where": condition, "postgresql_where": condition}


runs: Final = Table(
    "runs",
    metadata,
    _seq(),
    _id(),
    _thread_id(),
    Column("status", String, nullable=False),
    Column("deadline", INTEGER, nullable=False),  # Unix seconds; outlives `expires_at`
    Column("epoch", INTEGER, nullable=False, default=0),
    Column("attempts", INTEGER, nullable=False, default=0),  # see `execution/trials.py`
    Column("prompt_tokens", INTEGER, nullable=False, default=0),
    Column("completion_tokens", INTEGER, nullable=False, default=0),
    Column("reasoning_effort", String),  # not on the wire's run, but the model is told
    _body(),  # as stored: see `shared_json.py`
    Column("worker", String),  # the process that executes it, where several share the database
    Index("runs_by_thread", "thread_id", "seq"),
    Index("active_runs", "status", "seq", **_where_active()),
    Index("one_active_run", "thread_id", unique=True, **_where_active()),
    sqlite_autoincrement=True,
)

ACTIVE: Final = runs.c.status.in_(
    [literal_column(f"'{status}'") for status in sorted(ACTIVE_STATUSES)]
)
"""In the very words of the partial indexes, or SQLite would not use them."""

steps: Final = Table(
    "steps",
    metadata,
    _seq(),
    _id(),
    Column("run_id", String, ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("status", String, nullable=False),
    Column("prompt_tokens", INTEGER, nullable=False, default=0),  # hidden while in progress
    Column("completion_tokens", INTEGER, nullable=False, default=0),
    _body(),
    Column("echoed", Text),  # JSON of `Echoed`, for the model's endpoint alone
    Index("steps_by_run", "run_id", "seq"),
    sqlite_autoincrement=True,
)

events: Final = Table(
    "events",
    metadata,
    Column("run_id", String, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("last", INTEGER, primary_key=True),  # sequence number of the last event in `body`
    Column("first", INTEGER, nullable=False),
    Column("epoch", INTEGER, nullable=False),
    Column("created_at", INTEGER, nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
)
"""A row holds the events of one piece of work, as they are sent."""

shared_json: Final = Table(
    "shared_json",
    metadata,
    Column("hash", String, primary_key=True),  # SHA-256 of `body`
    Column("body", LargeBinary, nullable=False),
    Column("used_at", INTEGER, nullable=False),  # Unix seconds of a run's creation, to the hour
)
"""What runs have in common; `shared_json.py` says how."""

run_shared_json: Final = Table(
    "run_shared_json",
    metadata,
    Column("run_id", String, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("hash", String, ForeignKey("shared_json.hash"), primary_key=True, index=True),
)
"""Which of it must stay, since the run names it."""

idempotency: Final = Table(
    "idempotency",
    metadata,
    Column("project", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("created_at", INTEGER, nullable=False, index=True),
    Column("status_code", INTEGER, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

workers: Final = Table(
    "workers",
    metadata,
    Column("name", String, primary_key=True),
    Column("seen_at", INTEGER, nullable=False),  # Unix seconds of the database's clock
)
"""Processes that execute runs, where several share the database, and when each was last alive."""

probe: Final = Table(
    "probe", metadata, Column("id", INTEGER, primary_key=True), Column("at", INTEGER)
)
"""One row, written by `/healthz` to see whether writing works."""
