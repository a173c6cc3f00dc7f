"""On which database a test runs: a file of SQLite, or PostgreSQL.

A pytest plugin, which tests/conftest.py loads. A test of the server takes `database`, or `serve`
which does, and is run on SQLite; on both where its module is marked `postgresql`; and with
`--database=postgresql` all tests that take it are run on PostgreSQL, and no others, but for those
that are marked `sqlite`, with the reason.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest

from tests import postgres
from tests.postgres import Postgres

__all__ = ["Database", "Db", "end_trouble", "execute", "make_trouble", "refuse", "texts_only"]

SQLITE, POSTGRESQL = "sqlite", "postgresql"
Db: TypeAlias = Path | str
"""A file, or the URL of a database."""


class Database:
    """Where a test has its data."""

    def __init__(self, servers: Postgres | None, stack: ExitStack) -> None:
        """Use files, or the databases of a PostgreSQL until `stack` is closed."""
        self._postgres = servers
        self._stack = stack
        self._urls: dict[Path, str] = {}

    @property
    def kind(self) -> str:
        """Return "sqlite" or "postgresql"."""
        return SQLITE if self._postgres is None else POSTGRESQL

    def __call__(self, path: Path) -> Db:
        """Return the path itself, or the URL of the database that stands for it."""
        if self._postgres is None:
            return path
        if path not in self._urls:
            self._urls[path] = self._stack.enter_context(self._postgres.database())
        return self._urls[path]


def execute(db: Db, statement: str, *parameters: Any) -> list[Any]:
    """Execute one statement, with `?` for each parameter, and return the rows; commits."""
    if isinstance(db, Path):
        with closing(sqlite3.connect(db)) as file, file:
            return file.execute(statement, parameters).fetchall()
    query: Any = statement.replace("?", "%s")
    with psycopg.connect(db, autocommit=True) as connection:
        cursor = connection.execute(query, parameters or None)
        return cursor.fetchall() if cursor.description is not None else []


def make_trouble(db: Db, table: str, when: str = "true") -> None:
    """Have the database fail whenever such a row is added, as it does where its disk is full."""
    if isinstance(db, Path):
        _make_trigger(db, table, when, "SELECT no_such_thing();")
    else:
        _make_trigger(db, table, when, "RAISE 'no room' USING ERRCODE = 'disk_full';")


def refuse(db: Db, table: str, when: str = "true") -> None:
    """Have the database refuse each such row, with "not this one"."""
    if isinstance(db, Path):
        _make_trigger(db, table, when, "SELECT RAISE(ABORT, 'not this one');")
    else:
        _make_trigger(db, table, when, "RAISE 'not this one';")


def _make_trigger(db: Db, table: str, when: str, action: str) -> None:
    begin = f"CREATE TRIGGER trouble BEFORE INSERT ON {table}"
    if isinstance(db, Path):
        execute(db, f"{begin} WHEN {when} BEGIN {action} END")
        return
    execute(
        db,
        "CREATE OR REPLACE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql"
        f" AS $$ BEGIN {action} RETURN NEW; END $$",
    )
    execute(db, f"{begin} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION trouble()")


def end_trouble(db: Db, table: str) -> None:
    """Have it work again."""
    execute(db, f"DROP TRIGGER trouble{'' if isinstance(db, Path) else f' ON {table}'}")


def texts_only(row: Any, body: Any) -> Any:
    """Return the row of a table of tests, which is for SQLite alone if this body is no text."""
    about_file = pytest.mark.sqlite("a column of PostgreSQL keeps texts only")
    return row if isinstance(body, str) else pytest.param(row, marks=about_file)


MARKS = (
    "postgresql: runs on PostgreSQL as well, not on a file of SQLite alone",
    "sqlite(reason): is about the file, or what else PostgreSQL does not have",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of one database for all."""
    choices = (SQLITE, POSTGRESQL)
    what = "run the tests that have data in a database on this one, and no others"
    parser.addoption("--database", choices=choices, default=None, help=what)


def pytest_configure(config: pytest.Config) -> None:
    """Add our marks; remember the address of a server, and name the folder of one to be made."""
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    if not hasattr(config, "workerinput"):
        postgres.settle_folder()
    config.stash[_DSN] = os.environ.get(postgres.DSN)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the server, after all workers have ended."""
    if not hasattr(config, "workerinput"):
        postgres.stop_server(Path(os.environ.pop(postgres.FOLDER)))


_DSN = pytest.StashKey[str | None]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on the databases that are chosen for it."""
    if "database_kind" not in metafunc.fixturenames:
        return
    only: str | None = metafunc.config.getoption("database")
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    if only is not None:
        kinds = [only]
    elif POSTGRESQL in marks and SQLITE not in marks:
        kinds = [SQLITE, POSTGRESQL]
    else:
        return
    metafunc.parametrize("database_kind", kinds, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not run on the database that is asked for."""
    only = config.getoption("database")
    if only is None:
        return
    left = [item for item in items if not _runs_on(item, only)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if _runs_on(item, only)]


def _runs_on(item: pytest.Item, kind: str) -> bool:
    names = getattr(item, "fixturenames", ())
    if "postgres_url" in names:
        return kind == POSTGRESQL
    about_file = item.get_closest_marker(SQLITE) is not None
    return "database_kind" in names and not (kind == POSTGRESQL and about_file)


@pytest.fixture(scope="session")
def postgres_url(request: pytest.FixtureRequest) -> str:
    """The URL of a PostgreSQL, begun by whoever asks first."""
    there = request.config.stash[_DSN]
    if there is not None:
        return there
    postgres.sweep()
    return postgres.running(Path(os.environ[postgres.FOLDER]))


@pytest.fixture(scope="session")
def postgres_databases(postgres_url: str) -> Iterator[Postgres]:
    """The databases of this worker there."""
    made = Postgres(postgres_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def database_kind() -> str:
    """The database that this test runs on, unless `pytest_generate_tests` says another."""
    return SQLITE


def _leased(kind: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    servers = request.getfixturevalue("postgres_databases") if kind == POSTGRESQL else None
    with ExitStack() as stack:
        yield Database(servers, stack)


@pytest.fixture
def database(database_kind: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    """Where this test has its data: call it with a path."""
    yield from _leased(database_kind, request)


@pytest.fixture(scope="module")
def module_database(database_kind: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    """The same for all tests of a module."""
    yield from _leased(database_kind, request)


@pytest.fixture
def postgres_db(postgres_databases: Postgres) -> Iterator[str]:
    """The URL of a database of PostgreSQL without rows, for tests that are about it alone."""
    with postgres_databases.database() as url:
        yield url


@pytest.fixture
def new_postgres_db(postgres_databases: Postgres) -> Iterator[str]:
    """The URL of a database of PostgreSQL without anything."""
    with postgres_databases.database(new=True) as url:
        yield url
