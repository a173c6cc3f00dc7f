"""A database file is inspected without changing it or what lies beside it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio.to_thread
import pytest

from openai_runs import AsyncClient, ConfigError
from openai_runs.server import LocalServer
from openai_runs.server.store import FileReport, inspect_file
from openai_runs.server.store.migrations import SCHEMA_VERSION


def contents(folder: Path) -> dict[str, bytes]:
    """Return each file with what it holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def make(path: Path) -> None:
    """Make a file with a thread in it."""
    async with LocalServer(path) as server, AsyncClient(server.url) as client:
        await client.threads.create()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a file with a thread in it, which no server has open."""
    path = tmp_path / "made" / "runs.db"
    path.parent.mkdir()
    asyncio.run(make(path))
    return path


def test_free_file_stays_as_it_is(made: Path) -> None:
    """Whole, of today's schema, and free; not even an empty log is left beside it."""
    before = contents(made.parent)

    report = inspect_file(made)

    assert (report.problem, report.version) == ("", SCHEMA_VERSION)
    assert (report.server_url, report.lock_problem) == ("", "")
    assert report.size_bytes == made.stat().st_size
    assert contents(made.parent) == before


def test_served_file_names_its_server(made: Path) -> None:
    """Also what is only in the log is read, and the server goes on."""

    async def inspect() -> tuple[FileReport, str]:
        async with LocalServer(made) as server, AsyncClient(server.url) as client:
            report = await anyio.to_thread.run_sync(inspect_file, made)
            await client.threads.create()
            return report, server.url

    report, url = asyncio.run(inspect())

    assert (report.problem, report.server_url) == ("", url)


def test_files_that_cannot_be_served_say_why(made: Path, tmp_path: Path) -> None:
    """A damaged file, one of another program, and no database at all."""
    damaged, foreign, text = (tmp_path / name for name in ("damaged.db", "foreign.db", "text"))
    shutil.copy(made, damaged)
    with damaged.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    text.write_text("This is not a database, but long enough for a header. " * 20)

    assert inspect_file(damaged).problem
    assert inspect_file(foreign).problem == "it belongs to another program"
    assert "not a database" in inspect_file(text).problem


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_other_schema_versions_are_told(version: int, made: Path) -> None:
    """An older one and a newer one are no fault of the file."""
    with closing(sqlite3.connect(made)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")

    report = inspect_file(made)

    assert (report.version, report.newest_version, report.problem) == (version, SCHEMA_VERSION, "")


@pytest.mark.parametrize("name", ["missing.db", "."])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    """Nothing is made in its place."""
    with pytest.raises(ConfigError):
        inspect_file(tmp_path / name)

    assert contents(tmp_path) == {}
