"""Commands with a PostgreSQL that they cannot use, and databases that are so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from psycopg import conninfo

from tests.databases import execute
from tests.postgres import changed_url
from tests.server.store.postgres.proxying import proxied
from tests.transport.wire import free_port

__all__ = ["COMMANDS", "place"]

COMMANDS: Final = {
    "$ database away": ["serve"],
    "$ database url with a slash": ["serve"],
    "$ database missing": ["serve"],
    "$ database user unknown": ["worker"],
    "$ database without rights": ["serve"],
    "$ database without the schema": ["serve"],
    "$ database of another program": ["serve"],
    "$ database of a newer version": ["worker"],
    "$ database that is a standby": ["serve"],
    "$ database that loses notifications": ["serve"],
    "$ database of servers": ["ask", "Hi"],
    "$ worker of a file": ["worker"],
    "$ file that nobody executes": ["serve", "--no-execute"],
}
"""Heading in `mistakes.txt` -> the command; `--db` comes after it."""


@contextmanager
def place(name: str, db: str) -> Iterator[str]:
    """Yield what `--db` is for this mistake, at an empty database."""
    if name in _URLS:
        yield _URLS[name](db)
    elif name in _STATEMENTS:
        execute(db, _STATEMENTS[name])
        yield db
    elif name == "$ database without rights":
        role = f"{conninfo.conninfo_to_dict(db)['dbname']}_role"
        execute(db, f"CREATE ROLE {role} LOGIN PASSWORD 'unused'")
        try:
            yield changed_url(db, user=role, password="unused")
        finally:
            execute(db, f"DROP ROLE {role}")
    else:
        with proxied(db) as proxy:
            proxy.losing = b" hello"
            yield proxy.url


_URLS: Final[dict[str, Callable[[str], str]]] = {
    "$ database away": lambda db: f"postgresql://runs@127.0.0.1:{free_port()}/runs",
    "$ database url with a slash": lambda db: "postgresql://runs:pass/word@db.internal/runs",
    "$ database missing": lambda db: changed_url(db, dbname="test_nowhere"),
    "$ database user unknown": lambda db: changed_url(db, user="nobody"),
    "$ database without the schema": lambda db: changed_url(db, options="-csearch_path=theirs"),
    "$ database that is a standby": lambda db: changed_url(
        db, options="-cdefault_transaction_read_only=on"
    ),
    "$ database of servers": lambda db: db,
    "$ worker of a file": lambda db: "runs.db",
    "$ file that nobody executes": lambda db: "runs.db",
}
_STATEMENTS: Final = {
    "$ database of another program": "CREATE TABLE threads (name text)",
    "$ database of a newer version": (
        "CREATE TABLE openai_runs_schema AS SELECT 99::bigint AS version"
    ),
}
