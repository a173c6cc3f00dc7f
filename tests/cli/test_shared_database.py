"""`--db postgresql://...` in the commands that look into a database, and in those that do not."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from openai_runs import AsyncClient, ConfigError
from openai_runs._diagnosis.database import check_database
from openai_runs.server import LocalServer, ScriptedBackend, Worker
from tests.archive.world import populate, script
from tests.canaries import CANARY_KEY
from tests.cli.conftest import InProcess
from tests.cli.processes import execute, files_in
from tests.cli.test_doctor import lines_of
from tests.databases import execute as execute_sql
from tests.postgres import changed_url

POSTGRES = "openai_runs.server.store.postgres"
AWAY = f"postgresql://me:{CANARY_KEY}@127.0.0.1:1/runs"


@pytest.fixture
async def db(postgres_db: str) -> str:
    """The URL of a database that a server has made ready."""
    async with LocalServer(postgres_db, executes=False):
        return postgres_db


def words_of(text: str) -> str:
    """Return the text without line breaks."""
    return " ".join(text.split())


async def test_threads_move_from_a_file_to_postgresql(db: str, tmp_path: Path) -> None:
    """Exported from the file and imported at the URL, they are the same when exported again."""
    async with (
        LocalServer(tmp_path / "runs.db", ScriptedBackend(script)) as server,
        AsyncClient(server.url) as client,
    ):
        await populate(client, 3)

    out = ["--out", "out"]
    done = await execute("export", *out, "--db", "runs.db", folder=tmp_path)
    dry = await execute("import", "out", "--db", db, "--dry-run", folder=tmp_path)
    new = await execute("import", "out", "--db", db, folder=tmp_path)
    again = await execute("export", *out, "--db", db, folder=tmp_path)
    listed = await execute("threads", "list", "--db", db, "--json", folder=tmp_path)

    assert [one.code for one in (done, dry, new, again, listed)] == [0] * 5, new.err
    assert "nothing written (--dry-run): 5 created" in dry.out
    assert "5 created" in new.out
    assert "0 threads written, 3 unchanged" in again.out
    assert len(json.loads(listed.out)["data"]) == 3


async def test_doctor_examines_a_database(db: str, tmp_path: Path) -> None:
    """Version, schema, notifications, who executes runs and how many wait; no password."""
    url = changed_url(db, password=CANARY_KEY)
    idle = await execute("doctor", "--db", url, folder=tmp_path)
    async with (
        LocalServer(db, executes=False) as server,
        AsyncClient(server.url) as client,
    ):
        run = await client.threads.create_and_run(
            assistant_id=(await client.assistants.create(model="echo")).id
        )
        waiting = await execute("doctor", "--db", url, "--json", folder=tmp_path)
        async with Worker(db):
            await client.runs.wait(run)
            busy = await execute("doctor", "--db", url, folder=tmp_path)

    states = lines_of(idle.out)
    assert (idle.code, waiting.code, busy.code) == (0, 0, 0)
    assert [states[name] for name in ("database", "schema", "notifications", "runs")] == ["ok"] * 4
    assert states["workers"] == "warn"
    assert max(map(len, idle.out.splitlines())) <= 80
    found = {one["topic"]: one["text"] for one in json.loads(waiting.out)["findings"]}
    assert re.match(r"1 queued, 0 in progress", found["runs"])
    assert re.search(
        r": PostgreSQL \d+\.\d+, [\d,]+ bytes, \d+ of \d+ connections", found["database"]
    )
    assert "workers           1 at work" in busy.out
    assert CANARY_KEY not in idle.out + waiting.out + busy.out


async def test_doctor_warns_of_a_clock_that_differs(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process lets runs expire by its own clock, those of others too."""
    now = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now() + 60)
        found = {one.topic: one for one in await check_database(db)}

    assert found["clock"].state == "warn"
    assert "+60 s from PostgreSQL's" in found["clock"].text
    assert "clock" not in {one.topic for one in await check_database(db)}


async def test_doctor_changes_nothing_in_an_empty_database(
    new_postgres_db: str, tmp_path: Path
) -> None:
    """It says that the tables are missing; neither it nor a command that looks makes them."""
    looked = await execute("doctor", "--db", new_postgres_db, folder=tmp_path)
    listed = await execute("threads", "list", "--db", new_postgres_db, folder=tmp_path)

    query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert (looked.code, listed.code) == (0, 1)
    assert "the first server makes them" in words_of(looked.out)
    assert "has no tables of this package" in listed.err
    assert execute_sql(new_postgres_db, query) == [(0,)]


async def test_doctor_names_a_schema_of_a_newer_version(
    new_postgres_db: str, tmp_path: Path
) -> None:
    """It fails, and reads no table that may be another by then."""
    async with LocalServer(new_postgres_db):
        pass
    execute_sql(new_postgres_db, "UPDATE openai_runs_schema SET version = 99")

    done = await execute("doctor", "--db", new_postgres_db, folder=tmp_path)

    assert done.code == 1
    assert lines_of(done.out)["schema"] == "fail"
    assert "runs" not in lines_of(done.out)


async def test_run_is_waited_for_and_cancelled_where_it_is(db: str, tmp_path: Path) -> None:
    """By a process of its own, which executes nothing; without a worker it says what to start."""
    async with (
        LocalServer(db, executes=False) as server,
        AsyncClient(server.url) as client,
    ):
        assistant = await client.assistants.create(model="echo")
        run = await client.threads.create_and_run(assistant_id=assistant.id)
        where = [run.id, "--thread", run.thread_id, "--db", db]
        alone = await execute("runs", "wait", *where, folder=tmp_path)
        async with Worker(db):
            done = await execute("runs", "wait", *where, folder=tmp_path)
            shown = await execute("runs", "show", *where, folder=tmp_path)

    assert (alone.code, done.code, shown.code) == (1, 0, 0)
    assert "no process executes the runs of postgresql://" in alone.err
    assert "completed" in done.out
    assert "completed" in shown.out


WRONG: dict[str, tuple[str, str]] = {
    "away": (AWAY, "is PostgreSQL running there"),
    "unreadable": (f"postgresql://me:{CANARY_KEY}/x@h/db", "USER:PASSWORD@HOST:PORT/NAME"),
}


@pytest.mark.parametrize(("url", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize(
    "command",
    [["doctor"], ["threads", "list"], ["import", "archive"], ["runs", "show", "run_1"]],
    ids=["doctor", "threads", "import", "runs"],
)
def test_database_that_cannot_be_used_is_explained(
    command: list[str], url: str, words: str, in_process: InProcess, tmp_path: Path
) -> None:
    """Exit code 1, one reason with what to do, and no secret; doctor fits 80 columns."""
    done = in_process(*command, "--db", url)

    assert done.code == 1
    assert words in words_of(done.out + done.err)
    assert CANARY_KEY not in done.out + done.err
    assert "Traceback" not in done.err
    assert max(map(len, done.out.splitlines()), default=0) <= 80
    assert files_in(tmp_path) == []


ASKING: dict[str, list[str]] = {
    "ask": ["ask", "Hello!"],
    "chat": ["chat"],
    "batch": ["batch", "run", "in.jsonl", "--out", "out.jsonl", "--checkpoint", "b.db"],
}


@pytest.mark.parametrize("command", ASKING.values(), ids=ASKING)
def test_command_that_asks_starts_no_server_on_a_shared_database(
    command: list[str], in_process: InProcess, tmp_path: Path
) -> None:
    """It would execute the runs of others, with its own model: the sentence says what to start."""
    (tmp_path / "in.jsonl").write_text('{"id": "1", "text": "Hello!"}\n')

    done = in_process(*command, "--db", AWAY)

    assert done.code == 2
    assert "start `openai-runs serve --db postgresql://...`" in done.err
    assert CANARY_KEY not in done.out + done.err


def test_embedded_server_is_for_files() -> None:
    """`AsyncClient.local()` refuses a URL at once, without a word of it."""
    with pytest.raises(ConfigError) as refused:
        AsyncClient.local(AWAY)

    assert "a LocalServer with that URL" in str(refused.value)
    assert CANARY_KEY not in str(refused.value)


def leave_out(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a package of the extra not be installed."""
    for name in [each for each in sys.modules if each.startswith(POSTGRES)]:
        monkeypatch.delitem(sys.modules, name)
    missing: Any = None
    monkeypatch.setitem(sys.modules, module, missing)


@pytest.mark.parametrize("module", ["psycopg", "psycopg_pool", "procrastinate"])
async def test_package_that_is_missing_is_named(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install."""
    leave_out(module, monkeypatch)

    with pytest.raises(ConfigError) as refused:
        await LocalServer(AWAY).start()

    name = module.replace("_", "-")
    sentence = f"A database at postgresql:// needs the package {name}: pip install "
    assert str(refused.value).startswith(sentence)


def test_command_names_the_packages_of_the_extra(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, and exit code 1."""
    leave_out("psycopg", monkeypatch)

    done = in_process("import", "archive", "--db", AWAY)

    assert done.code == 1
    assert "needs the package psycopg: pip install '" in done.err
    assert "'psycopg[binary,pool]" in done.err
    assert "'procrastinate" in done.err
