"""The program of the guide is killed while its run waits for a tool, and run again."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from asyncio.subprocess import PIPE
from contextlib import closing
from pathlib import Path

import pytest

from openai_runs import AsyncClient
from tests.test_docs import PAGES_FOLDER, ROOT, blocks_of

HANGING = """
import asyncio, time
import job

def notify(account):
    print(account, flush=True)
    time.sleep(3600)

job.notify = notify
asyncio.run(job.main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the guide's program in it."""
    (program,) = blocks_of(PAGES_FOLDER / "guides" / "resuming.md")
    (tmp_path / "job.py").write_text(program.source.lstrip())
    return tmp_path


async def launch(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start Python in the folder."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        stdout=PIPE,
        stderr=PIPE,
    )


def stored(folder: Path, query: str) -> list[tuple[str, ...]]:
    """Return what the program has noted."""
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        return ledger.execute(query).fetchall()


async def test_program_killed_while_a_tool_runs_goes_on_when_it_is_run_again(folder: Path) -> None:
    """SIGKILL takes the server along; the second process finishes the same run, paid once."""
    first = await launch(folder, "-c", HANGING)
    assert first.stdout is not None
    assert (await first.stdout.readline()).decode() == "Acme\n"
    first.kill()
    await first.communicate()
    jobs = stored(folder, "SELECT thread_id, run_id FROM jobs")
    thread_id, run_id = jobs[0]

    second = await launch(folder, "job.py")
    out, err = await second.communicate()

    assert (second.returncode, out.decode()) == (0, "completed pay says: paid Acme\n"), err
    assert stored(folder, "SELECT thread_id, run_id FROM jobs") == jobs
    assert stored(folder, "SELECT account FROM payments") == [("Acme",)]
    async with AsyncClient.local(folder / "runs.db") as client:
        (run,) = await client.runs.list(thread_id)
        result = await client.runs.result(run)
    assert (run.id, run.status) == (run_id, "completed")
    assert result.text == "pay says: paid Acme"


async def test_program_killed_before_it_noted_its_run_starts_no_other(folder: Path) -> None:
    """The create is sent again with its key, and answered with the run that is there."""
    first = await launch(folder, "-c", HANGING)
    assert first.stdout is not None
    await first.stdout.readline()
    first.kill()
    await first.communicate()
    (before,) = stored(folder, "SELECT thread_id, run_id FROM jobs")
    with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        ledger.execute("DELETE FROM jobs")
        ledger.commit()

    second = await launch(folder, "job.py")
    _, err = await second.communicate()

    assert second.returncode == 0, err
    assert stored(folder, "SELECT thread_id, run_id FROM jobs") == [before]
    assert stored(folder, "SELECT account FROM payments") == [("Acme",)]
