"""A file of an older schema is copied, then upgraded step by step; nothing is ever in between."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from openai_runs.errors import ConfigError
from openai_runs.server import LocalServer
from openai_runs.server.store import migrations
from openai_runs.server.store.database import Connection
from openai_runs.server.store.migrations import (
    MIGRATIONS,
    OLDEST_VERSION,
    SCHEMA_VERSION,
    Migration,
)
from openai_runs.server.store.sqlite import connection as driver
from openai_runs.server.store.sqlite.opening import prepare

ROOT = Path(__file__).resolve().parents[3]
OLDEST = ROOT / "tests" / "samples" / "databases" / "36fc0e1" / "runs.sqlite3"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A file of the oldest schema, with runs in every status."""
    return Path(shutil.copy(OLDEST, tmp_path / "runs.db"))


class Failing(driver.Connection):
    """A connection of SQLite's that fails before a statement."""

    left = 0
    """Statements until it fails; 0: never."""
    error: Exception = RuntimeError("not today")

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Execute the statement, or raise."""
        self.left -= 1
        if self.left == 0:
            raise self.error
        return super().execute(sql, parameters)


@contextmanager
def connected(db: Path) -> Iterator[Failing]:
    """Open the file as the writer does."""
    with closing(sqlite3.connect(db, isolation_level=None, factory=Failing)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection


def upgrade(db: Path, steps: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Bring the file up to date."""
    with connected(db) as connection:
        prepare(connection, db, steps)


def query(db: Path, sql: str) -> list[Any]:
    """Return the rows of a closed file."""
    with closing(sqlite3.connect(db)) as file:
        return file.execute(sql).fetchall()


def version_of(db: Path) -> int:
    """Return the schema version that the file says it has."""
    return int(query(db, "PRAGMA user_version")[0][0])


def schema_of(db: Path) -> dict[tuple[str, str], str]:
    """Return the definition of each table and index, without its blanks."""
    found = query(db, "SELECT type, name, sql FROM sqlite_master")
    return {(kind, name): re.sub(r"\s+", "", sql or "") for kind, name, sql in found}


def made(schema: dict[tuple[str, str], str]) -> set[str]:
    """Return which of `MADE` a file has."""
    tables = {name: sql for (kind, name), sql in schema.items() if kind == "table"}
    parts = {each: each.partition(".") for each in MADE.values()}
    return {
        each
        for each, (table, _, column) in parts.items()
        if table in tables and f",{column}" in tables[table]
    }


def contents_of(db: Path) -> dict[str, list[Any]]:
    """Return all rows of the tables and columns that every version has."""
    tables = ("assistants", "threads", "messages", "runs", "steps", "idempotency")
    columns = {
        table: ", ".join(row[1] for row in query(db, f"PRAGMA table_info({table})"))
        for table in tables
    }
    columns["steps"] = columns["steps"].removesuffix(", echoed")
    columns["runs"] = columns["runs"].removesuffix(", worker")
    return {
        table: query(db, f"SELECT {columns[table]} FROM {table} ORDER BY 1, 2") for table in tables
    }


def test_schema_is_that_of_a_new_file_when_the_oldest_is_upgraded(db: Path) -> None:
    """The migrations and the tables of `schema.py` say the same."""
    new = db.with_name("new.db")

    upgrade(new)
    upgrade(db)

    assert schema_of(db) == schema_of(new)
    assert version_of(db) == version_of(new) == SCHEMA_VERSION


def test_migrations_are_numbered_without_a_gap() -> None:
    """Each file of the folder is in the list, under the number in its name."""
    files = sorted(Path(migrations.__file__).parent.glob("m*.py"))
    modules = [sys.modules[step.migrate.__module__] for step in MIGRATIONS]

    assert [step.version for step in MIGRATIONS] == [
        *range(OLDEST_VERSION + 1, OLDEST_VERSION + 1 + len(files))
    ]
    assert [module.__file__ for module in modules] == [str(file) for file in files]
    assert [int(file.name[1:5]) for file in files] == [step.version for step in MIGRATIONS]


def test_each_migration_runs_once_and_in_order(db: Path) -> None:
    """Those before the file's own version are not run, and none is when it is opened again."""
    ran: list[int] = []
    steps = tuple(Migration(n, lambda _, n=n: ran.append(n)) for n in (1, 2, 3, 4))  # type: ignore[misc]

    upgrade(db, steps)
    upgrade(db, steps)

    assert ran == [2, 3, 4]
    assert version_of(db) == 4


def add_table(name: str) -> Callable[[Connection], None]:
    """Return a migration that needs two statements."""

    def migrate(connection: Connection) -> None:
        connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, body TEXT)")
        connection.execute(f"INSERT INTO {name} (body) SELECT body FROM runs")

    return migrate


NEXT = SCHEMA_VERSION + 1
ADDED = {NEXT: f"added_{NEXT}", NEXT + 1: f"added_{NEXT + 1}"}
LONGER = (*MIGRATIONS, *(Migration(n, add_table(name)) for n, name in ADDED.items()))
"""The migrations there are and two more, so that there is something in between."""
MADE = {2: "events", 3: "shared_json", 4: "steps.echoed", 5: "workers", **ADDED}
"""A table, or a column of a table, that came with each version."""
ERRORS: dict[str, Exception] = {
    "of the disk": sqlite3.OperationalError("disk I/O error"),
    "of our own": RuntimeError("not today"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_file_is_of_one_version_when_an_error_comes_before_any_statement(
    db: Path, error: Exception
) -> None:
    """Its number and its tables agree, no row is lost, and the next start brings it up."""
    before = contents_of(db)
    copies: list[Path] = []
    versions = []
    for number in range(1, 100):
        tried = Path(shutil.copy(OLDEST, db.with_name(f"{number}.db")))
        with connected(tried) as connection:
            connection.left, connection.error = number, error
            try:
                prepare(connection, tried, LONGER)
            except (ConfigError, RuntimeError):
                pass
            else:
                break
        version = version_of(tried)
        versions.append(version)
        present = made(schema_of(tried))
        assert present == {table for since, table in MADE.items() if since <= version}, number
        upgrade(tried, LONGER)
        assert (version_of(tried), contents_of(tried)) == (NEXT + 1, before)
        copies.append(tried.with_name(f"{tried.name}.schema-1"))

    assert sorted(set(versions)) == [*range(OLDEST_VERSION, NEXT + 2)]
    assert versions == sorted(versions)
    assert {version_of(copy) for copy in copies if copy.exists()} == {1}
    assert not list(db.parent.glob("*.partial"))


def opened(tries: dict[Path, int], *limited: str) -> tuple[list[int], str]:
    """Open each file in a process that is killed before this statement; 0: before none.

    Return how they ended, as `tests.server.opened` says, and what they wrote to stderr.
    """
    arguments = [str(each) for pair in tries.items() for each in pair]
    command = [*limited, sys.executable, "-m", "tests.server.opened", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()], done.stderr


def test_file_is_of_one_version_when_its_server_is_killed_before_any_statement(db: Path) -> None:
    """The same, by SIGKILL: nothing gets to tidy up."""
    before = contents_of(db)
    (statements,), _ = opened({Path(shutil.copy(OLDEST, db.with_name("whole.db"))): 0})
    files = [Path(shutil.copy(OLDEST, db.with_name(f"{n}.db"))) for n in range(statements)]

    ends, _ = opened({file: number for number, file in enumerate(files, 1)})
    versions = [version_of(file) for file in files]
    schemas = [schema_of(file) for file in files]
    for file in files:
        upgrade(file)

    assert set(ends) == {-signal.SIGKILL}
    assert set(versions) == {*range(OLDEST_VERSION, NEXT)}
    assert versions == sorted(versions)
    for version, schema in zip(versions, schemas, strict=True):
        assert {MADE.get(v) for v in range(2, version + 1)} == made(schema)
    assert {version_of(file) for file in files} == {SCHEMA_VERSION}
    assert all(contents_of(file) == before for file in files)
    assert not list(db.parent.glob("*.partial"))


def test_copy_is_made_beside_the_file_when_it_is_upgraded(db: Path) -> None:
    """As it was, for its owner alone whatever the file is; and only once."""
    before, copy = contents_of(db), db.with_name("runs.db.schema-1")
    db.chmod(0o640)

    upgrade(db)
    made = copy.stat()
    upgrade(db)

    assert (version_of(copy), contents_of(copy)) == (1, before)
    assert stat.S_IMODE(made.st_mode) == 0o600
    assert copy.stat().st_mtime_ns == made.st_mtime_ns
    assert sorted(path.name for path in db.parent.iterdir()) == ["runs.db", "runs.db.schema-1"]


def test_copy_lies_beside_the_real_file_when_it_is_opened_by_a_link(db: Path) -> None:
    """There, where the same file system has it."""
    folder = db.parent / "links"
    folder.mkdir()
    link = folder / "link.db"
    link.symlink_to(db)

    upgrade(link)

    assert db.with_name("runs.db.schema-1").exists()
    assert [path.name for path in folder.iterdir()] == ["link.db"]


def test_what_a_killed_upgrade_left_is_written_anew(db: Path) -> None:
    """Half a copy, and a whole one of the same version from before the file went back to it."""
    copy = db.with_name("runs.db.schema-1")
    copy.write_bytes(b"an earlier copy")
    copy.with_name("runs.db.schema-1.partial").write_bytes(b"half a copy")

    upgrade(db)

    assert version_of(copy) == 1
    assert not list(db.parent.glob("*.partial"))


def test_no_copy_is_made_of_a_new_file(tmp_path: Path) -> None:
    """There is nothing to lose."""
    upgrade(tmp_path / "new.db")
    upgrade(tmp_path / "new.db")

    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]


def test_file_is_not_upgraded_when_it_cannot_be_copied(db: Path) -> None:
    """The sentence names both files and SQLite's or the system's reason."""
    (db.with_name("runs.db.schema-1") / "full").mkdir(parents=True)

    with pytest.raises(ConfigError, match=r"schema version 1 .*cannot be copied to .*schema-1'"):
        upgrade(db)

    assert version_of(db) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit for another process")
def test_file_is_not_upgraded_when_the_disk_is_full(db: Path) -> None:
    """Half a copy is removed again."""
    ends, said = opened({db: 0}, "sh", "-c", 'ulimit -f 100 && exec "$@"', "sh")

    assert ends == [255]
    assert "cannot be copied to" in said
    assert version_of(db) == 1
    assert [path.name for path in db.parent.iterdir() if "schema" in path.name] == []


def test_failed_upgrade_says_where_the_file_stands(db: Path) -> None:
    """The step that failed, and that nothing of it was kept."""

    def fail(connection: Connection) -> None:
        connection.execute("CREATE TABLE half (id)")
        connection.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(
        ConfigError,
        match=rf"version {SCHEMA_VERSION} to {NEXT}, and it stays at {SCHEMA_VERSION}: no such",
    ):
        upgrade(db, (*MIGRATIONS, Migration(NEXT, fail)))

    assert version_of(db) == SCHEMA_VERSION
    assert ("table", "half") not in schema_of(db)


def rebuild_threads(connection: Connection) -> None:
    """Add a column in the way SQLite asks for: a new table in place of the old one."""
    connection.execute(
        "CREATE TABLE new (seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "
        "id VARCHAR NOT NULL UNIQUE, project VARCHAR NOT NULL, body TEXT NOT NULL, owner VARCHAR)"
    )
    connection.execute("INSERT INTO new SELECT seq, id, project, body, NULL FROM threads")
    connection.execute("DROP TABLE threads")
    connection.execute("ALTER TABLE new RENAME TO threads")


def test_rows_are_kept_when_a_migration_rebuilds_the_table_they_refer_to(db: Path) -> None:
    """Dropping the old table deletes nothing that refers to it."""
    before = contents_of(db)

    with connected(db) as connection:
        prepare(connection, db, (*MIGRATIONS, Migration(NEXT, rebuild_threads)))
        enforced = connection.execute("PRAGMA foreign_keys").fetchone()

    after = contents_of(db)
    assert after.pop("threads") == [(*row, None) for row in before.pop("threads")]
    assert after == before
    assert enforced == (1,)


def test_migration_is_undone_when_it_leaves_rows_that_refer_to_nothing(db: Path) -> None:
    """Foreign keys are checked before it is committed."""

    def lose(connection: Connection) -> None:
        connection.execute("DELETE FROM threads")

    with pytest.raises(ConfigError, match="refer to rows of threads that are not there"):
        upgrade(db, (*MIGRATIONS, Migration(NEXT, lose)))

    assert version_of(db) == SCHEMA_VERSION
    assert len(query(db, "SELECT id FROM threads")) > 1


def test_newer_file_is_refused_with_both_versions_and_its_copy(db: Path) -> None:
    """The sentence says what to do; nothing is changed."""
    upgrade(db)
    with closing(sqlite3.connect(db)) as file:
        file.execute("PRAGMA user_version = 99")
    before = db.read_bytes()

    with pytest.raises(ConfigError) as refused:
        upgrade(db)

    sentence = str(refused.value)
    assert "has schema version 99; this version of openai-runs knows versions up to " in sentence
    assert f"up to {SCHEMA_VERSION}, so install" in sentence
    assert "install a newer one, or use its copy from before" in sentence
    assert os.fspath(db.with_name("runs.db.schema-1")) in sentence
    assert db.read_bytes() == before


STRANGERS = {
    "number-0": 0,
    "number-of-an-older-version": OLDEST_VERSION,
    "number-of-this-version": SCHEMA_VERSION,
    "negative-number": -1,
    "newer-number": 99,
}


@pytest.mark.parametrize("number", STRANGERS.values(), ids=STRANGERS)
async def test_file_of_another_program_is_left_alone(tmp_path: Path, number: int) -> None:
    """Whatever it numbers its own schema with."""
    db = tmp_path / "o.db"
    with closing(sqlite3.connect(db)) as file:
        file.execute("CREATE TABLE runs (name)")
        file.execute(f"PRAGMA user_version = {number}")
    before = schema_of(db)

    with pytest.raises(ConfigError, match="belongs to another program"):
        await LocalServer(db).start()

    assert schema_of(db) == before
    assert version_of(db) == number
    assert not db.with_name("o.db.schema-1").exists()
