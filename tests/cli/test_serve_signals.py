"""`openai-runs serve` ends in order whenever a signal comes, and however many."""

import asyncio
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from openai_runs import AsyncClient
from tests.cli.processes import COMMAND, clean_env, files_in, finish, launch, serving, start
from tests.server.store.test_old_files import copy_of

ENDINGS = [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
NAMES = [number.name for number, _ in ENDINGS]
STUCK_IMPORT = "open('gate').read()\n"
"""A module that is loaded only when somebody has written to the fifo of this name."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def hears(pid: int, number: int) -> bool:
    """Return whether the process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [line for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


async def until_heard(pid: int, number: int) -> None:
    """Return once the process has a handler for the signal."""
    with anyio.fail_after(20):
        while not hears(pid, number):  # noqa: ASYNC110 - nobody announces it
            await anyio.sleep(0.001)


@pytest.mark.parametrize(("number", "code"), ENDINGS, ids=NAMES)
async def test_signal_while_modules_are_loaded_ends_the_command(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """The handlers are there before anything slow is imported; nothing is left behind."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "cyclopts.py").write_text(STUCK_IMPORT)  # the first that `serve` needs
    folder = tmp_path / "empty"
    folder.mkdir()
    os.mkfifo(folder / "gate")

    process = await launch("serve", "--port", "0", folder=folder, PYTHONPATH=str(modules))
    gate = await anyio.to_thread.run_sync(os.open, folder / "gate", os.O_WRONLY)
    process.send_signal(number)
    left = await finish(process)
    os.close(gate)

    assert (left.code, left.out, left.err) == (code, "", "")
    assert files_in(folder) == ["gate"]


@pytest.mark.parametrize(("number", "code"), ENDINGS, ids=NAMES)
async def test_first_signal_that_can_be_heard_ends_the_command(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """As early as there is a handler: the exit code is that of a server which was stopped."""
    process = await start(["serve", "--port", "0"], tmp_path, {}, fresh=True)  # still importing
    await until_heard(process.pid, signal.SIGHUP)  # the last that is set
    process.send_signal(number)
    left = await finish(process)

    assert left.code == code
    assert "Traceback" not in left.err


@pytest.mark.parametrize(("number", "code"), ENDINGS, ids=NAMES)
async def test_signal_while_the_database_is_opened_ends_the_command(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """An upgrade that waits for another program: it is done or not begun, and none is half."""
    db = copy_of("10517d7", tmp_path)
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        process = await launch("serve", "--port", "0", folder=tmp_path)
        with anyio.fail_after(20):  # the file is copied, and its upgrade waits for the lock
            while not copies_in(tmp_path):  # noqa: ASYNC110 - nobody announces it
                await anyio.sleep(0.001)
        process.send_signal(number)
        process.send_signal(number)
        other.execute("ROLLBACK")
        left = await finish(process)

    assert left.code == code
    assert "Traceback" not in left.err
    assert not [name for name in files_in(tmp_path) if name.endswith(".partial")]
    async with serving(folder=tmp_path) as server:
        await server.end(signal.SIGTERM)


def copies_in(folder: Path) -> list[str]:
    """Return the copies that were made before an upgrade."""
    names = files_in(folder)
    return [name for name in names if ".schema-" in name and not name.endswith(".partial")]


@pytest.mark.parametrize("numbers", [[signal.SIGTERM] * 2, [signal.SIGTERM, signal.SIGINT]])
async def test_signals_in_a_row_end_a_server_in_order(
    numbers: list[signal.Signals], tmp_path: Path
) -> None:
    """However many come until it is gone, none of them kills it."""
    async with serving(folder=tmp_path) as server:
        # Not by asyncio: its `send_signal` would reap the process, and its exit code be lost.
        process = os.pidfd_open(server.process.pid)
        with anyio.fail_after(20):
            while server.process.returncode is None:
                for number in numbers:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(process, number)
                await anyio.lowlevel.checkpoint()
        os.close(process)
        left = await finish(server.process)

    assert left.code in {0, 143, 130}  # of two at the same moment, either may be the first
    assert "Traceback" not in left.err
    assert files_in(tmp_path) in (["runs.db"], ["runs.db", "runs.db.lock"])


@asynccontextmanager
async def serving_under_nohup(
    folder: Path,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a server with SIGHUP ignored; yield it and its URL."""
    process = await asyncio.create_subprocess_exec(
        "nohup",
        *COMMAND,
        "serve",
        "--port",
        "0",
        cwd=folder,
        env=clean_env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().split()[-1]
    finally:
        if process.returncode is None:
            process.kill()
            await finish(process)


async def test_hangup_is_ignored_under_nohup(tmp_path: Path) -> None:
    """Who starts a server so wants it to outlive the terminal."""
    async with serving_under_nohup(tmp_path) as (process, url):
        process.send_signal(signal.SIGHUP)
        async with AsyncClient(url) as client:
            thread = await client.threads.create()
        process.send_signal(signal.SIGTERM)
        left = await finish(process)

    assert thread.id
    assert left.code == 0


async def test_server_stops_in_order_when_its_terminal_is_closed(tmp_path: Path) -> None:
    """What it would say goes nowhere, and the database is closed as it should be."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        "setsid",
        "--ctty",
        *COMMAND,
        "serve",
        "--port",
        "0",
        cwd=tmp_path,
        env=clean_env(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    os.close(theirs)
    shown = b""
    while b"/v1" not in shown:
        shown += await anyio.to_thread.run_sync(os.read, ours, 4096)
    os.close(ours)
    with anyio.fail_after(20):
        await process.wait()

    assert process.returncode is not None
    assert process.returncode >= 0
    assert files_in(tmp_path) in (["runs.db"], ["runs.db", "runs.db.lock"])
