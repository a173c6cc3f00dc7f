"""The migrations: how a database of an older schema becomes one of the next, step by step.

Theory of operation. A new database is made from the tables in `schema.py` and runs none of
these. An older one runs those after its own version, in order, each in one transaction that
also records the new version; who opens the database does that, before anything else uses it
(`sqlite/opening.py`). So a crash leaves the old version or the new one, and the next start goes
on from there. A database of a version that is not known here is refused.

To add one: write `m<version>_<what>.py` with a function `migrate(connection)`, put it at the end
of `MIGRATIONS`, and change `schema.py` to match; `tests/server/store/test_migrations.py` compares
the two. A migration never changes once it was committed and imports nothing of the store: it is
about tables as they were then, not as they are now. Foreign keys are not enforced while it runs,
so that a table can be rebuilt, and are checked before it is committed.

Why not Alembic: it works on SQLAlchemy's engine, which the store does without (`statements.py`),
and brings an environment script, Mako and 50 ms of import to every start, for a list of functions
and one number. What it adds, comparing tables and generating scripts, serves databases that
others own; here one test compares. A second database starts at the version of its first release
with tables from `schema.py`; a migration that both need is plain SQL, or asks for its dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from openai_runs.server.store.database import Connection
from openai_runs.server.store.migrations import (
    m0002_event_log,
    m0003_shared_json,
    m0004_echoed,
    m0005_workers,
)

__all__ = ["MIGRATIONS", "OLDEST_VERSION", "SCHEMA_VERSION", "Migration"]

Migrate: TypeAlias = Callable[[Connection], None]


class Migration(NamedTuple):
    """One step."""

    version: int
    """The schema version it leads to, from the one before."""
    migrate: Migrate


OLDEST_VERSION: Final = 1
"""The schema version of the oldest databases there are."""
MIGRATIONS: Final = (
    Migration(2, m0002_event_log.migrate),
    Migration(3, m0003_shared_json.migrate),
    Migration(4, m0004_echoed.migrate),
    Migration(5, m0005_workers.migrate),
)
SCHEMA_VERSION: Final = MIGRATIONS[-1].version
"""The schema version of a database with the tables of `schema.py`."""
