"""`LocalServer.serve_until_signal`: a program that serves, and ends as it should."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from openai_runs import AsyncClient, InternalServerError
from openai_runs.server import LocalServer
from tests.test_docs import PAGES_FOLDER, blocks_of

ROOT = Path(__file__).resolve().parents[2]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
WAITING = """
import asyncio
import sys

from openai_runs.server import Finish, LocalServer, TextDelta


class Waiting:
    async def respond(self, request):
        yield TextDelta("Let me see.")
        await asyncio.to_thread(sys.stdin.readline)
        yield Finish()


async def main() -> None:
    async with LocalServer("runs.db", Waiting()) as server:
        print(f"listening on {server.url}", flush=True)
        await server.serve_until_signal()
        print("closed", flush=True)


asyncio.run(main())
"""
"""A program whose model answers once it is given a line."""


@asynccontextmanager
async def serving(
    source: str, folder: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start a program that prints its address, and yield it with the address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", source),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("listening on http://127.0.0.1:"), line
        yield process, line.removeprefix("listening on ").strip()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def stop_is_known(url: str) -> None:
    """Return once the server says that it takes no more work."""
    async with AsyncClient(url.removesuffix("/v1"), api_key=None, max_retries=0) as client:
        with suppress(InternalServerError):
            while True:
                await client.request("GET", "/readyz")


@pytest.fixture
def guide() -> str:
    """Return the program of the guide, on any free port."""
    blocks = blocks_of(PAGES_FOLDER / "guides" / "server.md")
    (program,) = (block for block in blocks if block.file == "serve.py")
    assert "port=8080" in program.source
    return program.source.replace("port=8080", "port=0")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("db", ['"runs.db"', "None"], ids=["file", "temporary"])
async def test_program_of_the_guide_ends_with_a_signal(
    guide: str, tmp_path: Path, number: signal.Signals, db: str
) -> None:
    """Without a traceback, and with nothing left but the file that it was given, closed."""
    async with serving(guide.replace('"runs.db"', db), tmp_path) as (process, url):
        async with AsyncClient(url, api_key=None) as client:
            await client.threads.create()
        process.send_signal(number)
        out, err = await process.communicate()

    left = await anyio.to_thread.run_sync(os.listdir, tmp_path)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert sorted(left) == (["runs.db", "runs.db.lock"] if db == '"runs.db"' else [])


@pytest.mark.parametrize(
    ("signals", "status"), [(1, "completed"), (2, "queued")], ids=["finished", "put-back"]
)
async def test_running_work_finishes_unless_a_second_signal_comes(
    tmp_path: Path, signals: int, status: str
) -> None:
    """What is not finished goes on at the next start."""
    async with serving(WAITING, tmp_path) as (process, url):
        async with AsyncClient(url, api_key=None) as client:
            assistant = await client.assistants.create(model="m")
            run = await client.threads.create_and_run(assistant_id=assistant.id)
            while run.status != "in_progress":
                run = await client.runs.retrieve(run.id, thread_id=run.thread_id)
        process.send_signal(signal.SIGTERM)
        await stop_is_known(url)
        if signals == 2:
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"closed\n"
        out, err = await process.communicate(b"\n")

    assert (process.returncode, err) == (0, b"")
    assert out == (b"closed\n" if signals == 1 else b"")
    with closing(sqlite3.connect(tmp_path / "runs.db")) as file:
        assert file.execute("SELECT status FROM runs").fetchall() == [(status,)]


async def test_handlers_are_as_before_once_it_is_cancelled() -> None:
    """The program goes on, and ends by a signal as any other does."""
    before = [signal.getsignal(number) for number in SIGNALS]
    async with LocalServer() as server:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(server.serve_until_signal)
                await anyio.wait_all_tasks_blocked()
                assert [signal.getsignal(number) for number in SIGNALS] != before
                scope.cancel()

    assert [signal.getsignal(number) for number in SIGNALS] == before


async def test_server_that_is_not_open_serves_nothing() -> None:
    """It would wait for a signal without an address."""
    with pytest.raises(RuntimeError, match="not open: call start"):
        await LocalServer().serve_until_signal()
