"""`openai-runs worker` executes what servers without execution take in, and ends in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from tests.canaries import CANARY_KEY
from tests.cli.conftest import InProcess
from tests.cli.processes import execute, finish, launch, read_until, serving
from tests.postgres import changed_url


def with_password(url: str) -> str:
    """Return the URL with a password, which this server does not ask for."""
    return changed_url(url, password=CANARY_KEY)


@asynccontextmanager
async def working(*arguments: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `openai-runs worker`; kill it at the end if it is still there."""
    process = await launch("worker", *arguments, folder=folder)
    try:
        await read_until("executing runs\n", process.stdout)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await finish(process)


async def test_worker_executes_what_a_server_takes_in(postgres_db: str, tmp_path: Path) -> None:
    """Both say what they do, without the password; SIGTERM ends each with 0."""
    where = ["--db", with_password(postgres_db)]
    async with (
        serving(*where, "--no-execute", folder=tmp_path) as server,
        AsyncClient(server.url) as client,
    ):
        run = await client.threads.create_and_run(
            assistant_id=(await client.assistants.create(model="echo")).id,
            thread={"messages": [{"role": "user", "content": "Hello!"}]},
        )
        waiting = await client.runs.retrieve(run.id, thread_id=run.thread_id)
        async with working(*where, folder=tmp_path) as process:
            ended = await client.runs.wait(run)
            process.send_signal(signal.SIGTERM)
            worked = await finish(process)
        served = await server.end(signal.SIGTERM)

    assert (waiting.status, ended.status) == ("queued", "completed")
    assert (worked.code, served.code) == (0, 0)
    assert "runs      not executed here: openai-runs worker executes them" in served.err
    assert "backend   echo" in worked.err
    for left in (worked, served):
        assert "database  postgresql://" in left.err
        assert CANARY_KEY not in left.err


async def test_worker_is_ended_by_the_keyboard(postgres_db: str, tmp_path: Path) -> None:
    """With the exit code of Ctrl-C, as `serve`."""
    async with working("--db", postgres_db, folder=tmp_path) as process:
        process.send_signal(signal.SIGINT)
        left = await finish(process)

    assert left.code == 130
    assert "Traceback" not in left.err


@pytest.mark.parametrize("command", [["worker"], ["serve", "--port", "0"]], ids=["worker", "serve"])
async def test_database_that_is_away_ends_the_start(command: list[str], tmp_path: Path) -> None:
    """One sentence says where, why and what to do, and no secret."""
    url = f"postgresql://me:{CANARY_KEY}@127.0.0.1:1/runs"

    left = await execute(*command, "--db", url, folder=tmp_path)

    (line,) = left.err.splitlines()
    assert (left.code, left.out) == (1, "")
    assert line.startswith("openai-runs: cannot use database postgresql://127.0.0.1:1/runs: ")
    assert line.endswith("is PostgreSQL running there, and does the address say so?")


def test_worker_needs_a_database_that_is_shared(in_process: InProcess) -> None:
    """A file is refused with what to name instead; without --db, it is named as missing."""
    file = in_process("worker", "--db", "runs.db")
    none = in_process("worker")

    assert (file.code, none.code) == (2, 2)
    assert "--db runs.db: a file is for one server" in file.err
    assert "--db postgresql://..." in file.err
    assert "--db" in none.err


def test_server_of_a_file_must_execute(in_process: InProcess) -> None:
    """Nobody else could execute its runs."""
    done = in_process("serve", "--db", "runs.db", "--no-execute")

    assert done.code == 2
    assert "--no-execute: runs.db is a file" in done.err


def test_help_of_worker_teaches(in_process: InProcess) -> None:
    """The two commands that belong together, and the exit codes."""
    done = in_process("worker", "--help")

    assert done.code == 0
    assert "openai-runs serve --db postgresql://db.example/runs --no-execute" in done.out
    assert "143  SIGTERM" in done.out
