"""Threads leave a server in bad weather, in pieces between kills, and come back the same."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
import pytest

from openai_runs import APIConnectionError, AsyncClient, RetryPolicy
from openai_runs.archive import LoadProgress, export, load
from openai_runs.server import LocalServer, ScriptedBackend
from tests.archive.world import files_in, populate, script, storm
from tests.cli.processes import execute, finish, launch, serving
from tests.e2e.referee import environments
from tests.tiers import few

READER = Path(environments.__file__).parent / "read_everything.py"
ONCE = RetryPolicy(max_retries=0)
COUNTS = [12, pytest.param(200, marks=pytest.mark.archive)]


async def killed_once(out: Path, url: str, threads: int) -> int:
    """Start an export, and end it by force once it has this many threads; return how it ended."""
    process = await launch("export", "--out", str(out), "--base-url", url, folder=out.parent)
    while process.returncode is None and whole_in(out) < threads:  # noqa: ASYNC110 - see below
        await anyio.sleep(0.005)  # nobody announces a file of another process
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    return (await finish(process)).code


def whole_in(out: Path) -> int:
    """Return how many threads are there."""
    return len(list(out.glob("threads/*.jsonl")))


async def read_by(version: str, url: str, threads: list[str]) -> dict[str, int]:
    """Return what the official package reads of these threads, by their ids."""
    command = [str(environments.python(version)), str(READER), url, *threads]
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", COUNTS)
async def test_threads_come_back_the_same_through_faults_and_kills(
    tmp_path: Path, count: int
) -> None:
    """Exported in pieces, imported, exported again: byte for byte the same, by their old ids."""
    first, second = tmp_path / "first", tmp_path / "second"
    db = tmp_path / "runs.db"
    chance = Random(count)
    populated = LocalServer(db, ScriptedBackend(script))
    async with populated, AsyncClient(populated.url) as client:
        ids = await populate(client, count)
    middlewares = [storm()]
    async with LocalServer(db, ScriptedBackend(), middlewares=middlewares) as origin:
        kills = [chance.randrange(count) for _ in range(2 if count < 100 else 10)]
        codes = [await killed_once(first, origin.url, n) for n in sorted(kills)]
        assert -signal.SIGKILL in codes
        done = await execute(
            "export", "--out", str(first), "--base-url", origin.url, folder=tmp_path
        )
        assert done.code == 0, done.err
    assert whole_in(first) == count

    middlewares = [storm(2)]
    async with LocalServer(backend=ScriptedBackend(), middlewares=middlewares) as stormy:
        async with AsyncClient(stormy.url) as client:
            report = await load(client, first)
            assert report.is_complete
            assert set(report.outcomes) <= {"created", "unchanged"}  # sent again, since it was lost
        done = await execute(
            "export", "--out", str(second), "--base-url", stormy.url, folder=tmp_path
        )
        assert done.code == 0, done.err
    assert files_in(first) == files_in(second)

    await read_with_the_official_package(tmp_path, first, ids)


async def read_with_the_official_package(tmp_path: Path, archive: Path, ids: list[str]) -> None:
    """See that each version reads all of the archive from a server that it was loaded into."""
    counts = json.loads((archive / "manifest.json").read_text())["counts"]
    async with LocalServer(tmp_path / "copy.db") as server:
        async with AsyncClient(server.url) as client:
            await load(client, archive)
        for version in environments.REQUIREMENTS:
            read = await read_by(version, server.url, ids)
            assert read == {**counts, "without events": counts["runs"]}


@pytest.mark.parametrize("seed", few(range(20), kept=[0, 1], rest=pytest.mark.archive))
async def test_server_killed_while_it_imports_has_whole_threads(tmp_path: Path, seed: int) -> None:
    """Each is there as a whole or not at all; the same import again adds the rest."""
    first, second = tmp_path / "first", tmp_path / "second"
    origin = LocalServer(backend=ScriptedBackend(script))
    async with origin, AsyncClient(origin.url) as client:
        await populate(client, 12)
        await export(client, first)
    pause = Random(seed).random() * 0.02

    async with serving("--db", "copy.db", folder=tmp_path) as server:

        def kill_soon(at: LoadProgress) -> None:
            if at.done == 4:
                asyncio.get_running_loop().call_later(pause, server.process.kill)

        async with AsyncClient(server.url) as client:
            with suppress(APIConnectionError):  # it may be killed after the last
                await load(client, first, retry=ONCE, on_progress=kill_soon)
        await server.process.wait()

    again = serving("--db", "copy.db", folder=tmp_path)
    async with again as server, AsyncClient(server.url) as client:
        report = await load(client, first)
        await export(client, second)
    assert report.is_complete
    assert report.outcomes["unchanged"] >= 4
    assert set(report.outcomes) <= {"created", "unchanged"}  # nothing was there in part
    assert files_in(first) == files_in(second)
